//! Time travel over the log: fold, diff, verify.
