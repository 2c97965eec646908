//! A metric with its samples, as plain values.

use crate::histogram::Histogram;

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows from the start of the daemon on. Its samples are called NAME_total.
    Counter,
    /// Goes up and down.
    Gauge,
    /// NAME_bucket, NAME_sum and NAME_count.
    Histogram,
    /// A gauge of 1 whose labels say something. Its samples are called NAME_info.
    Info,
}

/// A base unit of Prometheus; it ends the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of time, or since the Unix epoch.
    Seconds,
    /// Of memory, disk or network.
    Bytes,
}

/// A number.
#[derive(Debug, Clone)]
pub enum Value {
    /// A whole one.
    Whole(u64),
    /// Any other.
    Number(f64),
    /// Of a histogram.
    Histogram(Histogram),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&Histogram> for Value {
    fn from(value: &Histogram) -> Self {
        Self::Histogram(value.clone())
    }
}

/// Names and values, in the order in which they are shown.
pub type Labels = Vec<(&'static str, String)>;

/// One metric.
#[derive(Debug)]
pub struct Family {
    /// Without unit and suffix.
    pub name: &'static str,
    /// A sentence or a few words, without quotes and backslashes.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is counted in; absent where it counts things.
    pub unit: Option<Unit>,
    /// What is known of it.
    pub samples: Vec<(Labels, Value)>,
}

impl Family {
    fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind, unit: None, samples: Vec::new() }
    }

    /// A counter.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Counter, name, help)
    }

    /// A gauge.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Gauge, name, help)
    }

    /// A histogram.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Histogram, name, help)
    }

    /// Labels that say something.
    pub fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Info, name, help)
    }

    /// In seconds.
    pub fn seconds(self) -> Self {
        Self { unit: Some(Unit::Seconds), ..self }
    }

    /// In bytes.
    pub fn bytes(self) -> Self {
        Self { unit: Some(Unit::Bytes), ..self }
    }

    /// The one sample, where it is known.
    pub fn only(self, value: impl Into<MaybeValue>) -> Self {
        self.with([], value)
    }

    /// A sample with labels, where it is known.
    pub fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: impl Into<MaybeValue>) -> Self {
        let labels = || labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.extend(value.into().0.map(|value| (labels(), value)));
        self
    }
}

/// A value, or the knowledge that nobody knows it.
#[derive(Debug)]
pub struct MaybeValue(Option<Value>);

impl<V: Into<Value>> From<Option<V>> for MaybeValue {
    fn from(value: Option<V>) -> Self {
        Self(value.map(V::into))
    }
}

impl From<u64> for MaybeValue {
    fn from(value: u64) -> Self {
        Self(Some(value.into()))
    }
}

impl From<f64> for MaybeValue {
    fn from(value: f64) -> Self {
        Self(Some(value.into()))
    }
}

impl From<&Histogram> for MaybeValue {
    fn from(value: &Histogram) -> Self {
        Self(Some(value.into()))
    }
}
