-- The first schema. A released migration is never edited: a change is a new file.

-- Jobs by name; rows of the other tables name them by a small number.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- A record says how one attempt of one key ended. Most keys are random, and a table in the order of its keys would take a
-- page of its own for each. So a commit appends its records here, whatever their keys are, and when there are enough of them
-- they move to `records` together, as one generation.
CREATE TABLE recent (
    -- Counts the records of the store.
    seq INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    key BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    -- 1 = failed, 2 = failed and the broker confirmed the copy, 3 = done. Where one attempt has several, the greatest counts.
    outcome INTEGER NOT NULL,
    -- When it ended, Unix milliseconds.
    at INTEGER NOT NULL,
    -- How long it ran, milliseconds.
    ran INTEGER NOT NULL,
    -- How its process ended: the exit code, or the number of a signal below zero; NULL where no process ended.
    exit INTEGER
);

-- The generations that are whole. What `records` has of another one is a move that was not finished.
CREATE TABLE generations (
    id INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    -- The last `recent.seq` that is in it. Rows up to there wait only to be deleted.
    through INTEGER NOT NULL
);

-- Written once, in the order of the primary key, which is the table: one tree to search.
CREATE TABLE records (
    generation INTEGER NOT NULL,
    job INTEGER NOT NULL,
    key BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    at INTEGER NOT NULL,
    ran INTEGER NOT NULL,
    exit INTEGER,
    PRIMARY KEY (generation, job, key, attempt)
) WITHOUT ROWID;

-- What is known about a failed attempt: enough to build its copy again.
CREATE TABLE failures (
    job INTEGER NOT NULL,
    key BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    class TEXT NOT NULL,
    error TEXT NOT NULL,
    -- Seconds until the next attempt; NULL = dead.
    delay_s INTEGER,
    -- When the message was first seen by any worker, Unix milliseconds.
    first_seen INTEGER NOT NULL,
    PRIMARY KEY (job, key, attempt)
) WITHOUT ROWID;

-- The names of the hosts that this store was used on. A record belongs to the last of them that began before it.
CREATE TABLE hosts (
    -- Unix milliseconds.
    since INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);

-- Attempts whose handler may have started, of jobs with in_doubt = "dead". The record of an attempt deletes its row, so what
-- a start of the daemon finds here was running when the last one died.
CREATE TABLE starts (
    job INTEGER NOT NULL,
    key BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    -- Unix milliseconds.
    at INTEGER NOT NULL,
    PRIMARY KEY (job, key, attempt)
) WITHOUT ROWID;

-- Jobs that were paused by hand.
CREATE TABLE pauses (
    job INTEGER PRIMARY KEY,
    reason TEXT,
    -- Who asked for it, as the control socket saw it.
    by TEXT NOT NULL,
    -- Unix milliseconds.
    since INTEGER NOT NULL
);

-- All that is known, wherever it stands.
CREATE VIEW outcomes AS
    SELECT job, key, attempt, outcome, at, ran, exit FROM generations JOIN records ON records.generation = generations.id
    UNION ALL
    SELECT job, key, attempt, outcome, at, ran, exit FROM recent
    WHERE seq > (SELECT coalesce(max(through), 0) FROM generations);
