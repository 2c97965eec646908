//! `warrend check`: judges the configuration without a broker.
