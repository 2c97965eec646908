//! Computing the hashes of the audit trail again, for `warrend audit verify`.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::super::{StoreError, look};
use super::link::{Hash, link};
use super::{Act, Anchor, Chain, FIELD_COUNT, FIELDS};

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows of both chains that are as they were written.
    pub rows: u64,
    /// The last row of each chain that has some.
    pub ends: Vec<Anchor>,
    /// Of each chain the first row that is not; and rows that are not as they were expected.
    pub broken: Vec<Broken>,
}

/// A row that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its chain.
    pub chain: String,
    /// Its number.
    pub seq: i64,
    /// What is wrong with it; goes after its name.
    pub why: &'static str,
}

/// The ends of a chain as they stand beside it.
struct Ends {
    first: i64,
    before: Hash,
    last: i64,
    hash: Hash,
}

/// Computes the hashes of a store, which may be in use, or of a copy of one. `expected` were seen before.
pub fn verify(path: &Path, expected: &[Anchor]) -> Result<Checked, StoreError> {
    let connection = look::open(path)?;
    check(&connection, expected)
        .map_err(|error| StoreError::sqlite(&format!("verify the audit trail of {}", path.display()), &error))
}

fn check(connection: &Connection, expected: &[Anchor]) -> rusqlite::Result<Checked> {
    let snapshot = connection.unchecked_transaction()?;
    let mut checked = Checked::default();
    for chain in Chain::ALL {
        let broken = match ends(&snapshot, chain)? {
            Some(ends) => {
                let broken = check_chain(&snapshot, chain, &ends, &mut checked)?;
                broken.or(check_beginning(&snapshot, chain, &ends)?)
            }
            None => Some((1, "has no known beginning: the row of its chain in audit_ends is missing or damaged")),
        };
        let named = |(seq, why)| Broken { chain: chain.as_str().to_owned(), seq, why };
        checked.broken.extend(broken.map(named));
    }
    let strange = "SELECT chain, seq FROM audit WHERE chain NOT IN (1, 2) ORDER BY chain, seq LIMIT 1";
    let strange = snapshot.query_row(strange, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
    let why = "is of a chain that does not exist";
    checked.broken.extend(strange.map(|(chain, seq)| Broken { chain: chain.to_string(), seq, why }));
    for anchor in expected {
        checked.broken.extend(check_expected(&snapshot, anchor)?);
    }
    Ok(checked)
}

fn ends(connection: &Connection, chain: Chain) -> rusqlite::Result<Option<Ends>> {
    let select = "SELECT first, before, last, hash FROM audit_ends WHERE chain = ?1
                  AND length(before) = 32 AND length(hash) = 32";
    let read =
        |row: &Row<'_>| Ok(Ends { first: row.get(0)?, before: row.get(1)?, last: row.get(2)?, hash: row.get(3)? });
    connection.query_row(select, [chain as i64], read).optional()
}

/// The first row of a chain that does not follow from the one before it.
fn check_chain(
    connection: &Connection,
    chain: Chain,
    ends: &Ends,
    checked: &mut Checked,
) -> rusqlite::Result<Option<(i64, &'static str)>> {
    let mut select = connection.prepare(&format!("SELECT {FIELDS}, hash FROM audit WHERE chain = ?1 ORDER BY seq"))?;
    let mut rows = select.query([chain as i64])?;
    let (mut next, mut previous) = (ends.first, ends.before);
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(1)?;
        if seq < next {
            return Ok(Some((seq, "stands before the beginning of its chain")));
        }
        if seq > next {
            return Ok(Some((next, "is missing")));
        }
        let fields = (0..FIELD_COUNT).map(|at| row.get_ref(at)).collect::<rusqlite::Result<Vec<_>>>()?;
        let hash = link(&previous, fields.into_iter());
        if row.get_ref(FIELD_COUNT)?.as_blob() != Ok(&hash[..]) {
            return Ok(Some((seq, "was changed, or does not follow the row before it: its hash is another")));
        }
        checked.rows += 1;
        (next, previous) = (next + 1, hash);
    }
    let end = Anchor { chain, seq: next - 1, hash: previous };
    if end.seq < ends.last {
        return Ok(Some((next, "is missing, at the end of its chain")));
    }
    if end.seq > ends.last {
        return Ok(Some((ends.last + 1, "was added after the end of its chain")));
    }
    if end.hash != ends.hash {
        return Ok(Some((end.seq, "is not the row that was written last: its hash is another")));
    }
    checked.ends.extend((end.seq > 0).then_some(end));
    Ok(None)
}

/// What the daemon drops at the beginning of a chain, a later row tells of. Only so many later acts that this one was dropped
/// too take that away.
fn check_beginning(
    connection: &Connection,
    chain: Chain,
    ends: &Ends,
) -> rusqlite::Result<Option<(i64, &'static str)>> {
    if ends.first == 1 {
        return Ok(None);
    }
    let like = format!("through {}:%", chain.as_str());
    let select = "SELECT detail FROM audit WHERE chain = ?1 AND act = ?2 AND detail LIKE ?3 ORDER BY seq DESC LIMIT 1";
    let told = connection.query_row(select, (Chain::Acts as i64, Act::Dropped.as_str(), like), |row| row.get(0));
    let told: Option<String> = told.optional()?;
    let dropped = Anchor { chain, seq: ends.first - 1, hash: ends.before };
    let first_act = "SELECT first FROM audit_ends WHERE chain = ?1";
    let first_act: i64 = connection.query_row(first_act, [Chain::Acts as i64], |row| row.get(0))?;
    Ok(match told {
        Some(told) if told == format!("through {dropped}") => None,
        None if first_act > 1 && chain != Chain::Acts => None,
        Some(_) | None => Some((ends.first, "is the first one, and no act tells that those before it were dropped")),
    })
}

fn check_expected(connection: &Connection, anchor: &Anchor) -> rusqlite::Result<Option<Broken>> {
    let select = "SELECT hash FROM audit WHERE chain = ?1 AND seq = ?2";
    let found = connection.query_row(select, (anchor.chain as i64, anchor.seq), |row| row.get::<_, Vec<u8>>(0));
    let why = match found.optional()? {
        Some(hash) if hash == anchor.hash => return Ok(None),
        Some(_) => "has another hash than expected: it, or a row before it, was changed",
        None => "was expected and is not there",
    };
    Ok(Some(Broken { chain: anchor.chain.as_str().to_owned(), seq: anchor.seq, why }))
}

#[cfg(test)]
mod tests {
    use super::super::{Deed, append, drop_beyond, ends as ends_of};
    use super::*;
    use crate::config::{self, Synchronous};
    use crate::store::Store;
    use crate::task::{MessageKey, UnixMillis};
    use crate::who::Who;

    struct Bench {
        _folder: tempfile::TempDir,
        store: Store,
    }

    impl Bench {
        /// A trail of so many acts, and as many dead letters.
        fn of(rows: i64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = config::Store {
                path: folder.path().join("warrend.db"),
                synchronous: Synchronous::Normal,
                retention: std::time::Duration::from_secs(60),
            };
            let bench = Self { store: Store::open(&config).unwrap(), _folder: folder };
            (0..rows).for_each(|_| bench.add());
            bench
        }

        fn add(&self) {
            let by = Who { name: "anna".to_owned(), uid: Some(1000) };
            let act = Deed { detail: Some("why".to_owned()), ..Deed::new(by, Act::Paused).to("mail") };
            let key = Some(MessageKey::from_text("k"));
            let dead = Deed { key, count: Some(3), ..Deed::new(Who::daemon(), Act::Dead).to("mail") };
            append(&self.store.connection, UnixMillis(7), &act).unwrap();
            append(&self.store.connection, UnixMillis(8), &dead).unwrap();
        }

        fn check(&self, expected: &[Anchor]) -> Checked {
            check(&self.store.connection, expected).unwrap()
        }

        /// What somebody does who may write the file.
        fn tamper(&self, sql: &str) {
            let dropped = "DROP TRIGGER audit_is_appended_to; DROP TRIGGER audit_has_an_end;
                 DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted;
                 DROP TRIGGER audit_ends_go_forward; DROP TRIGGER audit_ends_stay; DROP TRIGGER audit_ends_are_all;";
            self.store.connection.execute_batch(&format!("{dropped}{sql}")).unwrap();
        }
    }

    #[test]
    fn a_trail_that_nobody_touched_is_whole() {
        assert_eq!(Bench::of(0).check(&[]), Checked::default());
        let bench = Bench::of(5);
        let ends = ends_of(&bench.store.connection).unwrap();
        assert_eq!(ends.len(), 2);
        let whole = Checked { rows: 10, ends: ends.clone(), broken: Vec::new() };
        assert_eq!(bench.check(&ends), whole);
        bench.add();
        assert_eq!(bench.check(&ends).broken, [], "what was seen is still there");
    }

    #[test]
    fn the_triggers_refuse_what_is_no_appending() {
        let bench = Bench::of(3);
        for sql in [
            "UPDATE audit SET by = 'eve' WHERE seq = 1",
            "DELETE FROM audit WHERE seq = 1",
            "DELETE FROM audit",
            "INSERT OR REPLACE INTO audit SELECT chain, seq, at, 'eve', uid, act, job, key, count, detail, hash FROM audit",
            "INSERT INTO audit SELECT 3, seq, at, by, uid, act, job, key, count, detail, hash FROM audit WHERE chain = 1",
            "UPDATE audit_ends SET last = 1, hash = zeroblob(32)",
            "UPDATE audit_ends SET first = 9",
            "DELETE FROM audit_ends",
            "INSERT OR REPLACE INTO audit_ends VALUES (1, 1, zeroblob(32), 0, zeroblob(32))",
        ] {
            let refused = bench.store.connection.execute_batch(sql).unwrap_err().to_string();
            assert!(refused.contains("the audit trail"), "{sql}: {refused}");
        }
        assert_eq!(bench.check(&[]).broken, []);
    }

    #[test]
    fn whatever_is_tampered_with_is_found_and_the_first_row_is_named() {
        let check = |sql: &str, chain: &str, seq: i64| {
            let bench = Bench::of(5);
            bench.tamper(sql);
            let broken = bench.check(&[]).broken;
            assert!(broken.iter().any(|broken| broken.chain == chain && broken.seq == seq), "{sql}: {broken:?}");
        };
        // Each field.
        check("UPDATE audit SET at = at + 1 WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET by = 'eve' WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET uid = 0 WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET uid = NULL WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET act = 'resumed' WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET job = 'other' WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET job = NULL WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET key = x'00' WHERE chain = 2 AND seq = 3", "dead", 3);
        check("UPDATE audit SET count = 4 WHERE chain = 2 AND seq = 3", "dead", 3);
        check("UPDATE audit SET detail = NULL WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET detail = job, job = detail WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET hash = zeroblob(32) WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET hash = x'' WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET seq = 9 WHERE chain = 1 AND seq = 3", "acts", 3);
        check("UPDATE audit SET chain = 3 WHERE chain = 1 AND seq = 3", "acts", 3);
        // Rows that are gone: first, in the middle, last, all of them.
        check("DELETE FROM audit WHERE chain = 1 AND seq = 1", "acts", 1);
        check("DELETE FROM audit WHERE chain = 1 AND seq = 3", "acts", 3);
        check("DELETE FROM audit WHERE chain = 1 AND seq = 5", "acts", 5);
        check("DELETE FROM audit WHERE chain = 2", "dead", 1);
        // Rows that changed places, came from elsewhere, or were never written.
        check(
            "UPDATE audit SET seq = 100 WHERE chain = 1 AND seq = 2; UPDATE audit SET seq = 2 WHERE chain = 1 AND seq = 3;
             UPDATE audit SET seq = 3 WHERE chain = 1 AND seq = 100",
            "acts",
            2,
        );
        check(
            "DELETE FROM audit WHERE chain = 2 AND seq = 3; UPDATE audit SET chain = 2 WHERE chain = 1 AND seq = 3",
            "dead",
            3,
        );
        let copy = "INSERT INTO audit SELECT 1, 6, at, by, uid, act, job, key, count, detail, hash FROM audit
                    WHERE chain = 1 AND seq = 5";
        check(copy, "acts", 6);
        let strange = "INSERT INTO audit SELECT 3, seq, at, by, uid, act, job, key, count, detail, hash FROM audit
                       WHERE chain = 1 AND seq = 5";
        check(strange, "3", 5);
        // The ends.
        check("UPDATE audit_ends SET hash = zeroblob(32) WHERE chain = 1", "acts", 5);
        check("UPDATE audit_ends SET before = randomblob(32) WHERE chain = 1", "acts", 1);
        check("DELETE FROM audit_ends WHERE chain = 2", "dead", 1);
        let shortened = "UPDATE audit_ends SET first = 3, before = (SELECT hash FROM audit WHERE chain = 1 AND seq = 2)
                         WHERE chain = 1; DELETE FROM audit WHERE chain = 1 AND seq < 3";
        check(shortened, "acts", 3);
    }

    #[test]
    fn an_end_that_was_cut_off_with_care_is_found_by_who_has_seen_it() {
        let bench = Bench::of(5);
        let seen = ends_of(&bench.store.connection).unwrap();
        bench.tamper(
            "DELETE FROM audit WHERE chain = 1 AND seq = 5; UPDATE audit_ends SET last = 4, hash =
             (SELECT hash FROM audit WHERE chain = 1 AND seq = 4) WHERE chain = 1",
        );
        assert_eq!(bench.check(&[]).broken, [], "a chain cannot prove this alone");
        let why = "was expected and is not there";
        assert_eq!(bench.check(&seen).broken, [Broken { chain: "acts".to_owned(), seq: 5, why }]);
        // Even with another row in its place.
        let refilled = append(&bench.store.connection, UnixMillis(9), &Deed::new(Who::daemon(), Act::Resumed)).unwrap();
        let moved = "UPDATE audit_ends SET last = 5, hash = ?1 WHERE chain = 1";
        bench.store.connection.execute(moved, [refilled.hash]).unwrap();
        assert_eq!(bench.check(&[]).broken, []);
        let why = "has another hash than expected: it, or a row before it, was changed";
        assert_eq!(bench.check(&seen).broken, [Broken { chain: "acts".to_owned(), seq: 5, why }]);
    }

    #[test]
    fn the_oldest_rows_are_dropped_and_the_trail_says_so() {
        let bench = Bench::of(25);
        let connection = &bench.store.connection;
        while drop_beyond(connection, UnixMillis(9), 10, 5).unwrap() {}
        let whole = bench.check(&[]);
        assert_eq!(whole.broken, []);
        let count = |chain: i64| -> i64 {
            connection.query_row("SELECT count(*) FROM audit WHERE chain = ?1", [chain], |row| row.get(0)).unwrap()
        };
        assert!((10..15).contains(&count(1)) && (10..15).contains(&count(2)), "{} {}", count(1), count(2));
        bench.add();
        assert_eq!(bench.check(&whole.ends).broken, [], "it goes on");
        // Who drops more must say so.
        bench.tamper(
            "UPDATE audit_ends SET first = first + 1, before = (SELECT hash FROM audit WHERE audit.chain = audit_ends.chain
             AND seq = first) WHERE chain = 1; DELETE FROM audit WHERE chain = 1 AND seq = (SELECT min(seq) FROM audit WHERE
             chain = 1)",
        );
        assert!(bench.check(&[]).broken.iter().any(|broken| broken.why.contains("no act tells")));
    }

    #[test]
    fn a_long_text_is_cut_and_still_fits_its_hash() {
        let bench = Bench::of(0);
        let detail = Some("ä\0b".to_owned());
        append(&bench.store.connection, UnixMillis(1), &Deed { detail, ..Deed::new(Who::daemon(), Act::Paused) })
            .unwrap();
        let detail = Some("ä".repeat(5000));
        append(&bench.store.connection, UnixMillis(1), &Deed { detail, ..Deed::new(Who::daemon(), Act::Paused) })
            .unwrap();
        assert_eq!(bench.check(&[]).broken, []);
        let lengths = "SELECT group_concat(length(CAST(detail AS BLOB))) FROM audit";
        let lengths: String = bench.store.connection.query_row(lengths, [], |row| row.get(0)).unwrap();
        assert_eq!(lengths, "2,1024");
    }
}
