-- A ledger as the first version of the schema left it. Never change this file: it stands for users' data.
PRAGMA application_id=1398228560;
PRAGMA user_version=1;
BEGIN TRANSACTION;
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
INSERT INTO "attempt" VALUES(1,1,1,'failed','38df0f45593301d9','c1','gpu-host','boot-1','gpu0','snapshot-a',1795000002.0,1795000003.0,1,'exit 3',3,0,1,'queued','{}','{}');
INSERT INTO "attempt" VALUES(1,1,2,'succeeded','df09039b4a354404','c2','gpu-host','boot-1','gpu0','snapshot-a',1795000004.0,1795000005.0,2,'',0,1,1,'succeeded','{"loss":[0.5,0.25,1.0,3,3,2,1]}','{"argv":["python","train.py","--lr=0.10"]}');
INSERT INTO "attempt" VALUES(1,2,1,'running','3dba9b3018006ef7','c3','gpu-host','boot-1','gpu1','snapshot-a',1795000006.0,NULL,NULL,'',NULL,0,NULL,NULL,'{}','{}');
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
INSERT INTO "sweep" VALUES(1,'d0917d178fa85f06','digits-1','{"project":"digits","task":"train","command":["python","train.py"],"shell":false,"flags":"equals","booleans":"flag","metrics":[["loss",null]],"objective":{"metric":"loss","goal":"minimize","at":"last"},"outputs":[],"needs":{"gpus":1,"cpus":1,"memory":null,"vram":null,"paths":["/data"],"hosts":[],"labels":[]},"environment":{"kind":"inherit","value":""},"variables":[],"timeout":60,"grace":10,"retries":[["*",1]],"max_failures":5,"workdir":"copy","log_limit":100000000,"output_limit":null,"snapshot_limit":500000000,"seed":null,"space":{}}','snapshot-a','running',1795000000.0,'the first','',NULL,'{"git":{"commit":"abc"}}');
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
INSERT INTO "trial" VALUES(1,1,'succeeded','{"lr":{"n":"0.10"},"opt":"sgd"}',1,'',0,2,'{"exit 3":1}',0,NULL,'{"loss":[0.5,0.25,1.0,3,3,2,1]}',1795000004.0,1795000005.0,'snapshot-a');
INSERT INTO "trial" VALUES(1,2,'running','{"lr":{"n":"0.10"},"opt":"adam"}',1,'',0,1,'{}',0,NULL,'{}',1795000006.0,NULL,'snapshot-a');
INSERT INTO "trial" VALUES(1,3,'queued','{"lr":{"n":"1e-2"},"opt":"sgd"}',1,'',0,0,'{}',0,NULL,'{}',NULL,NULL,'');
INSERT INTO "trial" VALUES(1,4,'cancelled','{"lr":{"n":"1e-2"},"opt":"adam"}',1,'stopped',0,0,'{}',0,NULL,'{}',NULL,1795000007.0,'');
CREATE TABLE used_name (
  name TEXT PRIMARY KEY COLLATE NOCASE
) STRICT, WITHOUT ROWID;
INSERT INTO "used_name" VALUES('digits-1');
INSERT INTO "used_name" VALUES('digits-2');
CREATE TABLE worker (
  host TEXT PRIMARY KEY,
  boot TEXT NOT NULL,
  registered REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX trial_state ON trial (sweep, state, number);
CREATE UNIQUE INDEX attempt_ending ON attempt (sweep, ending) WHERE ending IS NOT NULL;
CREATE TRIGGER trial_success_stands BEFORE UPDATE ON trial WHEN OLD.state = 'succeeded'
BEGIN
  SELECT RAISE(ABORT, 'a trial that succeeded never changes');
END;
CREATE TRIGGER attempt_accepted_stands BEFORE UPDATE ON attempt WHEN OLD.accepted = 1
BEGIN
  SELECT RAISE(ABORT, 'an accepted attempt never changes');
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('sweep',2);
COMMIT;
