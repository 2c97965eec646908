//! Which RabbitMQ this is, and whether anybody still mends it.

use super::finding::{Area, Finding, Level};
use crate::config::QueueKind;

/// A release series.
struct Series {
    /// Major and minor version.
    number: (u32, u32),
    /// The last day of the community's patches; `None`: not known when this table was made.
    community: Option<&'static str>,
    /// The last day of those that are sold.
    sold: Option<&'static str>,
}

const fn series(number: (u32, u32), community: Option<&'static str>, sold: Option<&'static str>) -> Series {
    Series { number, community, sold }
}

/// When the table was made: <https://endoflife.date/rabbitmq>, which follows
/// <https://www.rabbitmq.com/release-information>.
const AS_OF: &str = "March 2026";
/// From the newest.
const SERIES: [Series; 9] = [
    series((4, 2), None, None),
    series((4, 1), Some("2026-01-30"), Some("2028-04-29")),
    series((4, 0), Some("2025-04-15"), Some("2027-09-29")),
    series((3, 13), Some("2024-09-17"), Some("2027-12-30")),
    series((3, 12), Some("2024-02-21"), Some("2025-06-29")),
    series((3, 11), Some("2023-06-01"), Some("2024-06-29")),
    series((3, 10), Some("2022-09-28"), Some("2023-12-31")),
    series((3, 9), Some("2023-01-31"), Some("2023-07-31")),
    series((3, 8), Some("2022-07-31"), Some("2022-07-31")),
];
/// The first whose quorum queues dead-letter at least once.
const LADDER_NEEDS: (u32, u32) = (3, 10);

/// Judges what the broker calls itself, such as `RabbitMQ 3.10.8`. `today`: as `2026-03-31`.
pub fn judge(server: &str, delay_queues: QueueKind, today: &str) -> Vec<Finding> {
    let Some(number) = number(server) else {
        let text = format!("the broker calls itself {server:?}: warrend is made for RabbitMQ");
        return vec![Finding::new(Area::Broker, Level::Note, "version", text)];
    };
    let mut findings = vec![support(server, number, today)];
    if number < LADDER_NEEDS && delay_queues == QueueKind::Quorum {
        let text = format!("{server} has no queues that dead-letter at least once, on which retries wait");
        findings.push(
            Finding::new(Area::Broker, Level::Error, "delay-queues", text)
                .why("Retries cannot be published, so failed messages stay unacknowledged.")
                .or("in [broker]: delay_queues = \"classic\"")
                .or("upgrade to RabbitMQ 3.10 or newer"),
        );
    }
    findings
}

/// Major and minor version.
pub fn number(server: &str) -> Option<(u32, u32)> {
    let mut parts = server.strip_prefix("RabbitMQ ")?.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn support(server: &str, number: (u32, u32), today: &str) -> Finding {
    let finding = |level, text: String| Finding::new(Area::Broker, level, "version", text);
    let (major, minor) = number;
    if number > SERIES[0].number {
        return finding(Level::Ok, format!("{server}: newer than what this warrend knows ({AS_OF})"));
    }
    let upgrade = format!(
        "upgrade to RabbitMQ {}.{}: https://www.rabbitmq.com/docs/upgrade",
        SERIES[0].number.0, SERIES[0].number.1
    );
    let Some(found) = SERIES.iter().find(|series| series.number == number) else {
        return finding(Level::Warning, format!("{server}: the series {major}.{minor} gets no patches any more"))
            .why("Its security holes stay open.")
            .or(upgrade);
    };
    let over = |day: Option<&'static str>| day.filter(|day| *day < today);
    match (over(found.community), over(found.sold)) {
        (None, _) => finding(Level::Ok, format!("{server}: the series {major}.{minor} is supported (as of {AS_OF})")),
        (Some(free), None) => {
            let text = format!("{server}: the community's patches for {major}.{minor} ended on {free}");
            let why = match found.sold {
                Some(sold) => format!("Those of a commercial licence go on until {sold}."),
                None => "Those of a commercial licence go on.".to_owned(),
            };
            finding(Level::Note, text).why(why).or(upgrade)
        }
        (Some(_), Some(sold)) => {
            let text = format!("{server}: the last patches for {major}.{minor} ended on {sold}");
            finding(Level::Warning, text)
                .why("Its security holes stay open, unless your distribution mends them by itself, as Debian does.")
                .or(upgrade)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(server: &str, today: &str) -> (Level, String) {
        let finding = &judge(server, QueueKind::Classic, today)[0];
        (finding.level, finding.text.clone())
    }

    #[test]
    fn the_day_decides() {
        let check = |server: &str, today: &str, expect: Level| {
            let (level, text) = level(server, today);
            assert_eq!(level, expect, "{server} on {today}: {text}");
            assert!(text.contains(server), "{text}");
        };
        check("RabbitMQ 3.10.8", "2022-09-28", Level::Ok);
        check("RabbitMQ 3.10.8", "2022-09-29", Level::Note);
        check("RabbitMQ 3.10.8", "2024-01-01", Level::Warning);
        check("RabbitMQ 4.0.9", "2026-11-23", Level::Note);
        check("RabbitMQ 4.2.0-rc.1", "2030-01-01", Level::Ok);
        check("RabbitMQ 4.3.0", "2030-01-01", Level::Ok);
        check("RabbitMQ 3.6.16", "2026-01-01", Level::Warning);
        check("LavinMQ 2.0", "2026-01-01", Level::Note);
        assert!(SERIES.is_sorted_by(|a, b| a.number > b.number), "from the newest");
    }

    #[test]
    fn an_old_broker_cannot_have_the_ladder() {
        let codes = |server, kind| judge(server, kind, "2026-01-01").iter().map(|found| found.code).collect::<Vec<_>>();
        assert_eq!(codes("RabbitMQ 3.9.29", QueueKind::Quorum), ["version", "delay-queues"]);
        assert_eq!(codes("RabbitMQ 3.9.29", QueueKind::Classic), ["version"]);
        assert_eq!(codes("RabbitMQ 3.10.0", QueueKind::Quorum), ["version"]);
    }
}
