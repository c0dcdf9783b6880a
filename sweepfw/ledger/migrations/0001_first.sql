-- Sweeps, their trials, and the attempts at them. Times are Unix seconds in UTC; JSON stands in TEXT.

CREATE TABLE sweep (
  id INTEGER PRIMARY KEY AUTOINCREMENT,      -- never used again, not even after `rm`
  uid TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  spec TEXT NOT NULL,
  snapshot TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'stopped', 'done')),
  created REAL NOT NULL,
  note TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  ended REAL,
  provenance TEXT NOT NULL DEFAULT '{}'
) STRICT;

-- Every name that a sweep ever had. Letters' case does not tell folders apart on every file system.
CREATE TABLE used_name (
  name TEXT PRIMARY KEY COLLATE NOCASE
) STRICT, WITHOUT ROWID;

-- started, ended, snapshot and metrics are those of the last attempt, so that lists need no join.
CREATE TABLE trial (
  sweep INTEGER NOT NULL REFERENCES sweep (id),
  number INTEGER NOT NULL CHECK (number >= 1),
  state TEXT NOT NULL DEFAULT 'queued'
    CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'held')),
  params TEXT NOT NULL,
  repeat INTEGER NOT NULL DEFAULT 1,
  reason TEXT NOT NULL DEFAULT '',
  stop INTEGER NOT NULL DEFAULT 0,           -- asked of the running attempt: 1 stop, 2 stop now
  attempts INTEGER NOT NULL DEFAULT 0,       -- how many there were: the number of the newest
  failures TEXT NOT NULL DEFAULT '{}',       -- reason -> failed attempts since the trial was reopened
  losses INTEGER NOT NULL DEFAULT 0,         -- lost attempts since the trial was reopened
  next_snapshot TEXT,                        -- what the next attempt runs, if not the sweep's snapshot
  metrics TEXT NOT NULL DEFAULT '{}',
  started REAL,
  ended REAL,
  snapshot TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (sweep, number)
) STRICT, WITHOUT ROWID;

-- Counts, runnable and running trials, each in the order of their numbers.
CREATE INDEX trial_state ON trial (sweep, state, number);

CREATE TABLE attempt (
  sweep INTEGER NOT NULL,
  trial INTEGER NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  state TEXT NOT NULL DEFAULT 'running' CHECK (
    state IN ('running', 'succeeded', 'failed', 'cancelled', 'interrupted', 'lost', 'stale')
  ),
  token TEXT NOT NULL UNIQUE,
  claim_id TEXT NOT NULL,
  host TEXT NOT NULL,
  boot TEXT NOT NULL,
  slot TEXT NOT NULL,
  snapshot TEXT NOT NULL,
  started REAL NOT NULL,
  ended REAL,
  ending INTEGER,                            -- its place among the ends in its sweep, from 1
  reason TEXT NOT NULL DEFAULT '',
  exit_code INTEGER,
  accepted INTEGER NOT NULL DEFAULT 0 CHECK (accepted = 0 OR state = 'succeeded'),
  recorded INTEGER,                          -- what `finish` answered: 1 recorded, 0 stale, NULL not yet
  answer TEXT,                               -- and which state of the trial it told
  metrics TEXT NOT NULL DEFAULT '{}',
  outcome TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (sweep, trial, number),
  FOREIGN KEY (sweep, trial) REFERENCES trial (sweep, number),
  CHECK ((state = 'running') = (ending IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempt_ending ON attempt (sweep, ending) WHERE ending IS NOT NULL;

CREATE TABLE worker (
  host TEXT PRIMARY KEY,
  boot TEXT NOT NULL,
  registered REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- What is accepted is never run again, whatever a future version of the code believes.
CREATE TRIGGER trial_success_stands BEFORE UPDATE ON trial WHEN OLD.state = 'succeeded'
BEGIN
  SELECT RAISE(ABORT, 'a trial that succeeded never changes');
END;

CREATE TRIGGER attempt_accepted_stands BEFORE UPDATE ON attempt WHEN OLD.accepted = 1
BEGIN
  SELECT RAISE(ABORT, 'an accepted attempt never changes');
END;
