//! no_std
