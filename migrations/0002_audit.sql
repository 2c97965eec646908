-- Who did what: people by hand, and the daemon where it gave a message up. Only appended to; the hash of each row covers the
-- row before it.
CREATE TABLE audit (
    -- 1 = acts of people, 2 = dead letters. Each is a chain of its own, so that many dead letters crowd out no act.
    chain INTEGER NOT NULL,
    -- From 1, without gaps.
    seq INTEGER NOT NULL,
    -- Unix milliseconds.
    at INTEGER NOT NULL,
    -- The user's name, as the machine had it then.
    by TEXT NOT NULL,
    -- NULL where it was the daemon itself.
    uid INTEGER,
    act TEXT NOT NULL,
    -- By name: numbers of jobs are only this store's.
    job TEXT,
    key BLOB,
    -- Dead letters or records.
    count INTEGER,
    detail TEXT,
    -- SHA-256; `store/audit/link.rs` says of what.
    hash BLOB NOT NULL,
    PRIMARY KEY (chain, seq)
) STRICT, WITHOUT ROWID;

-- Where each chain begins and ends: so that rows that are missing there are missed.
CREATE TABLE audit_ends (
    chain INTEGER PRIMARY KEY,
    -- The first row that is kept, and the hash of the row before it.
    first INTEGER NOT NULL,
    before BLOB NOT NULL,
    -- The last row, and its hash.
    last INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
INSERT INTO audit_ends (chain, first, before, last, hash) VALUES
    (1, 1, zeroblob(32), 0, zeroblob(32)),
    (2, 1, zeroblob(32), 0, zeroblob(32));

-- Against mistakes and simple hands. Who may write the file can drop them; the hashes are against that.
CREATE TRIGGER audit_is_appended_to BEFORE INSERT ON audit
WHEN NEW.seq IS NOT (SELECT last + 1 FROM audit_ends WHERE chain = NEW.chain)
BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END;

CREATE TRIGGER audit_has_an_end AFTER INSERT ON audit
BEGIN UPDATE audit_ends SET last = NEW.seq, hash = NEW.hash WHERE chain = NEW.chain; END;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END;

-- The oldest rows go once the beginning of their chain is after them.
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
WHEN coalesce(OLD.seq >= (SELECT first FROM audit_ends WHERE chain = OLD.chain), TRUE)
BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END;

CREATE TRIGGER audit_ends_go_forward BEFORE UPDATE ON audit_ends
WHEN NEW.chain <> OLD.chain OR NEW.first < OLD.first OR NEW.last < OLD.last OR NEW.first > NEW.last + 1
BEGIN SELECT RAISE(ABORT, 'the ends of the audit trail only go forward'); END;

CREATE TRIGGER audit_ends_stay BEFORE DELETE ON audit_ends
BEGIN SELECT RAISE(ABORT, 'the ends of the audit trail only go forward'); END;

CREATE TRIGGER audit_ends_are_all BEFORE INSERT ON audit_ends
BEGIN SELECT RAISE(ABORT, 'the ends of the audit trail only go forward'); END;
