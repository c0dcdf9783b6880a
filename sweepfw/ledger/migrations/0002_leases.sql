-- Leases: attempts whose end is unknown, and workers that were replaced.

-- The attempts without an end: few, and asked for by host.
CREATE INDEX attempt_open ON attempt (host, boot) WHERE state = 'running';

-- The sweeps that a scheduler looks at: few among many that are done.
CREATE INDEX sweep_state ON sweep (state);

-- Boots that another has replaced at their host: a worker that wakes up late must not come back.
CREATE TABLE replaced (
  host TEXT NOT NULL,
  boot TEXT NOT NULL,
  PRIMARY KEY (host, boot)
) STRICT, WITHOUT ROWID;
