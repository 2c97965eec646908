//! Families as text: OpenMetrics 1.0, and the older text format of Prometheus (0.0.4) for whoever asks for nothing better.
//!
//! The library writes OpenMetrics. The older format is that with other words above the samples: there a counter's metadata bear
//! the name of its samples, an info is a gauge, and neither units nor an end are known.

use std::fmt::{Error, Write as _};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{self, Registry};

use super::family::{Family, Kind, Unit, Value};

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

impl Form {
    /// The better one that an `Accept` header allows. A Prometheus of the last years names OpenMetrics first.
    pub fn accepted(accept: &str) -> Self {
        let wants = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
            // Weights are not compared: whoever names it can read it, unless it says that it must not be.
            is_it && !parts.any(|part| ["q=0", "q=0.0", "q=0.00", "q=0.000"].contains(&part))
        });
        if wants { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The page. Metrics without samples are left out.
pub fn encode(families: Vec<Family>, form: Form) -> String {
    let known: Vec<_> = families.into_iter().filter(|family| !family.samples.is_empty()).collect();
    let kinds: Vec<_> = known.iter().map(|family| (full_name(family), family.kind)).collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(known)));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes all that is written to it");
    match form {
        Form::OpenMetrics => page,
        Form::Prometheus => older(&page, &kinds),
    }
}

/// With the unit, without a suffix.
pub fn full_name(family: &Family) -> String {
    match family.unit {
        Some(Unit::Seconds) => format!("{}_seconds", family.name),
        Some(Unit::Bytes) => format!("{}_bytes", family.name),
        None => family.name.to_owned(),
    }
}

/// The name that a query uses; that of a histogram is followed by `_bucket`, `_sum` or `_count`.
pub fn sample_name(full_name: &str, kind: Kind) -> String {
    match kind {
        Kind::Counter => format!("{full_name}_total"),
        Kind::Info => format!("{full_name}_info"),
        Kind::Gauge | Kind::Histogram => full_name.to_owned(),
    }
}

/// The same page for readers of the older format.
fn older(page: &str, kinds: &[(String, Kind)]) -> String {
    let mut older = String::with_capacity(page.len());
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        let head = (words.next(), words.next(), words.next(), words.next());
        let (Some("#"), Some(what), name, rest) = head else {
            older.push_str(line);
            older.push('\n');
            continue;
        };
        let family = kinds.iter().find(|(known, _)| Some(&**known) == name);
        let Some((name, kind)) = family.filter(|_| what == "HELP" || what == "TYPE") else { continue };
        let rest = match (what, kind) {
            ("TYPE", Kind::Info) => "gauge",
            (_, Kind::Counter | Kind::Gauge | Kind::Histogram | Kind::Info) => rest.unwrap_or_default(),
        };
        writeln!(older, "# {what} {} {rest}", sample_name(name, *kind))
            .expect("a String takes all that is written to it");
    }
    older
}

#[derive(Debug)]
struct Page(Vec<Family>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let unit = family.unit.map(|unit| match unit {
                Unit::Seconds => registry::Unit::Seconds,
                Unit::Bytes => registry::Unit::Bytes,
            });
            let mut metric = encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
            for (labels, value) in &family.samples {
                if family.kind == Kind::Info {
                    metric.encode_info(&labels.as_slice())?;
                } else if labels.is_empty() {
                    sample(&mut metric, family.kind, value)?;
                } else {
                    sample(&mut metric.encode_family(&labels.as_slice())?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn sample(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), Error> {
    match (value, kind) {
        (Value::Whole(value), Kind::Counter) => metric.encode_counter::<NoLabelSet, _, u64>(value, None),
        (Value::Number(value), Kind::Counter) => metric.encode_counter::<NoLabelSet, _, u64>(value, None),
        // The library takes no whole gauge above 2^63, which no count of bytes reaches.
        (Value::Whole(value), Kind::Gauge | Kind::Info | Kind::Histogram) => {
            metric.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX))
        }
        (Value::Number(value), Kind::Gauge | Kind::Info | Kind::Histogram) => metric.encode_gauge(value),
        (Value::Histogram(value), Kind::Counter | Kind::Gauge | Kind::Info | Kind::Histogram) => {
            let buckets: Vec<_> = value.buckets().collect();
            metric.encode_histogram::<NoLabelSet>(value.sum(), value.count(), &buckets, None)
        }
    }
}
