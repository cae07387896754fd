//! Numbers as Redis reads and prints them: stricter than Rust about integers, laxer about floats.
//!
//! A client that sends `+1`, `01` or `-0` where Redis wants an integer gets Redis' error, so none of these may slip
//! through; a client that sends `0x1p4` as a score gets 16. Arithmetic of `INCRBYFLOAT` is in [`super::extended`].

use super::extended::{Extended, Literal, round};

/// Longest text of an integer: a sign and 19 digits.
const MAX_INTEGER_TEXT: usize = 20;

/// Longest text of a float that Redis looks at, in bytes.
const MAX_FLOAT_TEXT: usize = 5 * 1024 - 1;

/// Why two floats could not be added; the texts are Redis' error replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FloatError {
    /// One of the two texts is no float.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// The sum is no finite number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
}

/// The integer that `text` is, as Redis' `string2ll` reads it: digits with at most a minus before them; no plus, no
/// space, no leading zero, no `-0`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    if text.len() > MAX_INTEGER_TEXT {
        return None;
    }
    match text {
        [b'0'] => Some(0),
        [b'-', b'1'..=b'9', ..] => 0i64.checked_sub_unsigned(magnitude(text.get(1..)?)?),
        [b'1'..=b'9', ..] => i64::try_from(magnitude(text)?).ok(),
        _ => None,
    }
}

/// The unsigned integer that `text` is: digits, of which the first may be zeros. (Redis' `string2ull`, as it reads the
/// ids of stream entries, also takes spaces and signs and wraps what is negative around: an accident nobody relies on.)
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() { None } else { magnitude(text) }
}

fn magnitude(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// The double that `text` is, as C's `strtod` under Redis' checks reads it: decimal or hexadecimal, with or without
/// exponent, `inf` and `infinity` in any case. Refused: not a number, spaces, and finite text that overflows or
/// vanishes.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    if let Some(small) = small_integer(text) {
        return Some(small);
    }
    let (negative, value) = match Literal::parse(text)? {
        Literal::Infinity { negative } => (negative, f64::INFINITY),
        Literal::Hexadecimal { negative, mantissa, exponent } => (negative, hexadecimal(mantissa, exponent)?),
        Literal::Decimal { negative, number } => (negative, decimal(text, number.is_zero())?),
    };
    Some(if negative { -value } else { value })
}

/// Most scores are small integers: these are exact, so no care is needed.
fn small_integer(text: &[u8]) -> Option<f64> {
    if text.len() > 15 { None } else { parse_i64(text).map(|value| value as f64) }
}

/// `text` without its sign, known to be a decimal literal.
fn decimal(text: &[u8], is_zero: bool) -> Option<f64> {
    let value = str::from_utf8(text).ok()?.parse::<f64>().ok()?.abs();
    (value.is_finite() && (value != 0.0 || is_zero)).then_some(value)
}

fn hexadecimal(mantissa: u128, exponent: i64) -> Option<f64> {
    if mantissa == 0 {
        return Some(0.0);
    }
    let (mantissa, exponent) = round(mantissa, exponent, f64::MANTISSA_DIGITS, -1074);
    if mantissa == 0 || exponent + i64::from(mantissa.ilog2()) > 1023 {
        return None;
    }
    // Without its highest bit a mantissa of 53 bits is the fraction; a shorter one is that of a subnormal.
    let raised = if mantissa >> 52 == 0 { 0 } else { (exponent + 1074) as u64 };
    Some(f64::from_bits((raised << 52).wrapping_add(mantissa)))
}

/// A printed double: at most 32 bytes, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct FloatText {
    bytes: [u8; 32],
    len: usize,
}

impl FloatText {
    /// The printed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, more: &[u8]) {
        let end = self.len.saturating_add(more.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(more);
            self.len = end;
        }
    }

    fn push_zeros(&mut self, count: i32) {
        (0..count).for_each(|_| self.push(b"0"));
    }
}

/// A double as Redis 7.2 prints scores and RESP3 doubles, in both protocols: the fewest digits that read back as the
/// same double; whole numbers up to 2⁶² in full; an exponent (`1e+100`, `1.5e-10`) only where it is shorter by much.
/// (Redis' algorithm, Grisu2, misses the fewest digits for about one double in a thousand; that is not imitated.)
pub fn format_f64(value: f64) -> FloatText {
    let mut text = FloatText { bytes: [0; 32], len: 0 };
    if value.is_nan() {
        text.push(b"nan");
    } else if value.is_infinite() {
        text.push(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        text.push(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() <= (1u64 << 62) as f64 && value.trunc() == value {
        text.push(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        shortest(value, &mut text);
    }
    text
}

fn shortest(value: f64, text: &mut FloatText) {
    let mut buffer = ryu::Buffer::new();
    let printed = buffer.format_finite(value.abs()).as_bytes();
    let mut digits = FloatText { bytes: [0; 32], len: 0 };
    let scale = significant(printed, &mut digits);
    if value < 0.0 {
        text.push(b"-");
    }
    place_point(digits.as_bytes(), scale, text);
}

/// Puts down the digits without point and without zeros at either end; answers the power of ten of the last one.
fn significant(printed: &[u8], digits: &mut FloatText) -> i32 {
    let mark = printed.iter().position(|&byte| byte == b'e').unwrap_or(printed.len());
    let (mantissa, exponent) = printed.split_at(mark);
    let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let exponent = exponent.get(1..).and_then(parse_i64).unwrap_or(0) as i32;
    let last = mantissa.iter().rposition(|byte| matches!(byte, b'1'..=b'9')).unwrap_or(0);
    let first = mantissa.iter().position(|byte| matches!(byte, b'1'..=b'9')).unwrap_or(0);
    for (at, &byte) in mantissa.iter().enumerate().take(last.saturating_add(1)).skip(first) {
        if at != point {
            digits.push(&[byte]);
        }
    }
    let places = if last < point {
        point.saturating_sub(last).saturating_sub(1) as i32
    } else {
        -(last.saturating_sub(point) as i32)
    };
    exponent.saturating_add(places)
}

/// Where Redis 7.2 puts the point of `digits · 10^scale`: trailing zeros while there are fewer than eight of them,
/// leading ones while the number is not too small, else an exponent.
fn place_point(digits: &[u8], scale: i32, text: &mut FloatText) {
    let before = scale.saturating_add(digits.len() as i32);
    let power = before.saturating_sub(1);
    if (0..8).contains(&scale) {
        text.push(digits);
        text.push_zeros(scale);
    } else if scale < 0 && (scale > -7 || power.abs() < 4) {
        let (whole, fraction) = digits.split_at(usize::try_from(before).unwrap_or(0));
        text.push(if whole.is_empty() { b"0" } else { whole });
        text.push(b".");
        text.push_zeros(before.saturating_neg());
        text.push(fraction);
    } else {
        let (first, rest) = digits.split_at(1);
        text.push(first);
        text.push(if rest.is_empty() { b"" } else { b"." });
        text.push(rest);
        text.push(if power < 0 { b"e-" } else { b"e+" });
        text.push(itoa::Buffer::new().format(power.unsigned_abs()).as_bytes());
    }
}

/// `current + increment`, as `INCRBYFLOAT` and `HINCRBYFLOAT` read, add and print: byte for byte what Redis answers on
/// x86-64, where it computes in extended precision. Never an exponent, at most 17 digits after the point.
///
/// # Errors
/// [`FloatError`]; its text is the error reply.
pub fn add_decimal(current: &[u8], increment: &[u8]) -> Result<Vec<u8>, FloatError> {
    let read = |text| parse_long_double(text).ok_or(FloatError::NotAFloat);
    let sum = read(current)?.add(read(increment)?).ok_or(FloatError::NotFinite)?;
    if sum.is_finite() { Ok(format_long_double(sum)) } else { Err(FloatError::NotFinite) }
}

/// The extended-precision number that `text` is, under the rules of [`parse_f64`] with a wider range.
pub fn parse_long_double(text: &[u8]) -> Option<Extended> {
    if text.len() > MAX_FLOAT_TEXT { None } else { Extended::parse(text) }
}

/// As Redis prints for people: 17 digits after the point, less the zeros at the end; never an exponent, never `-0`.
pub fn format_long_double(value: Extended) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(current: &str, increment: &str) -> Result<String, FloatError> {
        add_decimal(current.as_bytes(), increment.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    fn printed(value: f64) -> String {
        String::from_utf8(format_f64(value).as_bytes().to_vec()).unwrap()
    }

    /// `units` of 10^-17 as decimal text, without zeros at the end.
    fn scaled(units: i128) -> String {
        const UNIT: u128 = 100_000_000_000_000_000;
        let (sign, size) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
        let text = format!("{sign}{}.{:017}", size / UNIT, size % UNIT);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    proptest! {
        #[test]
        fn every_integer_is_read_back(signed: i64, unsigned: u64) {
            prop_assert_eq!(parse_i64(signed.to_string().as_bytes()), Some(signed));
            prop_assert_eq!(parse_u64(unsigned.to_string().as_bytes()), Some(unsigned));
        }

        #[test]
        fn text_is_an_integer_only_as_it_would_be_printed(text in "[-+ 0-9x]{0,22}") {
            let canonical = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), canonical);
        }

        #[test]
        fn every_double_is_read_back_from_its_print(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(parse_f64(printed(value).as_bytes()).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn any_text_is_a_float_or_refused_without_a_panic(text in "[-+0-9.exXpPinfatyINF]{0,24}") {
            let short = parse_f64(text.as_bytes());
            let long = parse_long_double(text.as_bytes());
            prop_assert!(short.is_none() || long.is_some(), "extended precision has the wider range");
        }

        /// Three roundings of numbers this small do not reach the seventeenth digit.
        #[test]
        fn below_ten_sums_are_those_of_decimal_arithmetic(
            current in -700_000_000_000_000_000i128..700_000_000_000_000_000,
            increment in -700_000_000_000_000_000i128..700_000_000_000_000_000,
            places in 0u32..17,
        ) {
            let unit = 10i128.pow(places);
            let (current, increment) = (current / unit * unit, increment / unit * unit);
            prop_assert_eq!(sum(&scaled(current), &scaled(increment)), Ok(scaled(current + increment)));
        }

        #[test]
        fn sums_commute_and_integers_stay_exact(a in -(1i64 << 61)..1 << 61, b in -(1i64 << 61)..1 << 61) {
            prop_assert_eq!(sum(&a.to_string(), &b.to_string()), Ok((a + b).to_string()));
            prop_assert_eq!(sum(&format!("{a}e-9"), &b.to_string()), sum(&b.to_string(), &format!("{a}e-9")));
        }
    }

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("18446744073709551616", None),
            ("-0", None),
            ("-", None),
            ("", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1\0", None),
            ("000000000000000000001", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn unsigned_integers_may_begin_with_zeros_but_not_with_a_sign() {
        assert_eq!(parse_u64(b"007"), Some(7));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", "-1", "+1", " 1", "18446744073709551616"] {
            assert_eq!(parse_u64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn floats_are_read_as_redis_reads_them() {
        for (text, expected) in [
            ("3", 3.0),
            ("+3.", 3.0),
            (".5e1", 5.0),
            ("1E-3", 0.001),
            ("inf", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("0x1P4", 16.0),
            ("-0x.8", -0.5),
            ("0x1.fffffffffffff8", 2.0),
            ("0x1p-1074", f64::from_bits(1)),
            ("0x1.8p-1075", f64::from_bits(1)),
            ("3e-324", f64::from_bits(1)),
            ("0e999999999999999999999", 0.0),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_redis_refuses_as_a_float_is_refused() {
        let refused =
            "nan|-nan|nan(1)|| 1|1 |1e|1e+|.|e5|0x|0x1p|1_0|infinit|--1|1e400|-1e400|1e-400|2e-324|0x1p1024|0x1p-1075";
        for text in refused.split('|') {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_f64(b"1\0"), None);
    }

    #[test]
    fn doubles_are_printed_as_redis_prints_them() {
        for (value, expected) in [
            (3.0, "3"),
            (3.1, "3.1"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e17, "100000000000000000"),
            (4611686018427387904.0, "4611686018427387904"),
            (1e19, "1e+19"),
            (1.25e100, "1.25e+100"),
            (0.001, "0.001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (12345.678901234, "1.2345678901234e+4"),
            (1234.5678, "1234.5678"),
            (-1.7976931348623157e308, "-1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(printed(value), expected);
        }
    }

    /// What C prints for `long double` on x86-64.
    #[test]
    fn sums_are_those_of_extended_precision() {
        for (current, increment, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.5", "0.1", "10.6"),
            ("3.0e3", "200", "3200"),
            ("5.0e3", "2.0e2", "5200"),
            ("1", "-1", "0"),
            ("-0", "0", "0"),
            ("-1e-18", "0", "0"),
            ("1000.1", "0.1", "1000.19999999999999996"),
            ("1234567.1", "0.1", "1234567.20000000000004547"),
            ("1e17", "0.1", "100000000000000000.1015625"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("36893488147419103233", "0", "36893488147419103232"),
            ("1e30", "1", "1000000000000000000024696061952"),
            ("0x1p4", "0x.8", "16.5"),
        ] {
            assert_eq!(sum(current, increment).as_deref(), Ok(expected), "{current} + {increment}");
        }
    }

    #[test]
    fn sums_that_are_no_numbers_are_refused_with_the_text_of_redis() {
        for (current, increment, expected) in [
            ("abc", "1", "ERR value is not a valid float"),
            ("1", "nan", "ERR value is not a valid float"),
            ("1", "1e5000", "ERR value is not a valid float"),
            ("1", "1e-5000", "ERR value is not a valid float"),
            ("inf", "1", "ERR increment would produce NaN or Infinity"),
            ("inf", "-inf", "ERR increment would produce NaN or Infinity"),
            ("1e4932", "1e4932", "ERR increment would produce NaN or Infinity"),
        ] {
            assert_eq!(sum(current, increment).unwrap_err().to_string(), expected);
        }
        assert!(parse_long_double(&[b'1'; MAX_FLOAT_TEXT + 1]).is_none());
    }

    #[test]
    fn the_range_is_that_of_extended_precision() {
        let digits = |text: &str| sum(text, "0").unwrap();
        assert!(digits("1e4932").starts_with("1000000000000000000"));
        assert_eq!(digits("1e4932").len(), 4933);
        assert_eq!(digits("1.18973149535723176502e4932").len(), 4933);
        assert_eq!(sum("1.1897314953572317651e4932", "0"), Err(FloatError::NotAFloat));
        assert_eq!(digits("0x1p-16445"), "0");
        assert_eq!(sum("0x1p-16446", "0"), Err(FloatError::NotAFloat));
    }
}
