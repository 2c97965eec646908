-- The first schema. A released migration is never edited: a change is a new file.

-- Jobs by name; rows of the other tables name them by a small number.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- One row for each finished attempt of each key. The primary key is the table: one tree to search, one to change.
CREATE TABLE records (
    job INTEGER NOT NULL,
    key BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    -- 1 = done, 2 = failed, 3 = failed and the broker confirmed the copy
    outcome INTEGER NOT NULL,
    -- When it ended, Unix milliseconds.
    at INTEGER NOT NULL,
    PRIMARY KEY (job, key, attempt)
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
    PRIMARY KEY (job, key, attempt)
) WITHOUT ROWID;

-- Sums that would take a scan to count.
CREATE TABLE totals (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO totals VALUES ('records', 0);
