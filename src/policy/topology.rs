//! Names and arguments of everything that warrend declares on the broker, as data.
