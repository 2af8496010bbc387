//! A client of a Quorate cluster. [`core`] is a pure role; the simulator drives it as it is.

pub mod core;
