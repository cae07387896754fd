//! Rule 10.
