//! The extension module `quorate._quorate`: registration and conversions only.
