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

    fn empty() -> Self {
        FloatText { bytes: [0; 32], len: 0 }
    }

    fn push(mut self, more: &[u8]) -> Self {
        if let Some(room) = self.bytes.get_mut(self.len..self.len.saturating_add(more.len())) {
            room.copy_from_slice(more);
            self.len = self.len.saturating_add(more.len());
        }
        self
    }
}

/// A double as Redis 7.2 prints scores and RESP3 doubles, in both protocols: the fewest digits that read back as the same
/// double; whole numbers up to 2⁶² in full; an exponent (`1e+100`, `1.5e-10`) only where it is shorter by much.
pub fn format_f64(value: f64) -> FloatText {
    let text = FloatText::empty();
    if value.is_nan() {
        text.push(b"nan")
    } else if value.is_infinite() {
        text.push(if value > 0.0 { b"inf" } else { b"-inf" })
    } else if value == 0.0 {
        text.push(if value.is_sign_negative() { b"-0" } else { b"0" })
    } else if value.abs() <= (1u64 << 62) as f64 && value.trunc() == value {
        text.push(itoa::Buffer::new().format(value as i64).as_bytes())
    } else {
        shortest(value)
    }
}

fn shortest(value: f64) -> FloatText {
    let mut buffer = ryu::Buffer::new();
    let mut text = FloatText::empty();
    let printed = buffer.format_finite(value.abs());
    if value < 0.0 {
        text = text.push(b"-");
    }
    let (digits, scale) = significant(printed);
    place_point(text, digits.as_bytes(), scale)
}

/// Digits without point and without zeros at either end, and the power of ten of the last one.
fn significant(printed: &str) -> (FloatText, i32) {
    let (mantissa, exponent) = printed.split_once('e').unwrap_or((printed, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let whole = whole.trim_start_matches('0');
    let leading = if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };
    let exponent = exponent.parse::<i32>().unwrap_or(0);
    let scale = exponent.saturating_sub(fraction.len() as i32);
    if fraction.is_empty() {
        let trimmed = whole.trim_end_matches('0');
        return (
            FloatText::empty().push(trimmed.as_bytes()),
            scale.saturating_add((whole.len() - trimmed.len()) as i32),
        );
    }
    (FloatText::empty().push(whole.as_bytes()).push(leading.as_bytes()), scale)
}

/// Where Redis 7.2 puts the point of `digits · 10^scale`: trailing zeros while there are fewer than eight of them, leading
/// ones while the number is not too small, else an exponent.
fn place_point(text: FloatText, digits: &[u8], scale: i32) -> FloatText {
    let zeros =
        |text: FloatText, count: usize| text.push(b"00000000000000000000000000000000".get(..count).unwrap_or(b""));
    let count = digits.len() as i32;
    let power = scale.saturating_add(count).saturating_sub(1);
    if (0..8).contains(&scale) {
        return zeros(text.push(digits), scale.unsigned_abs() as usize);
    }
    if scale < 0 && (scale > -7 || power.abs() < 4) {
        return match usize::try_from(scale.saturating_add(count)) {
            Ok(before @ 1..) => {
                let (whole, fraction) = digits.split_at(before);
                text.push(whole).push(b".").push(fraction)
            }
            _ => zeros(text.push(b"0."), scale.saturating_add(count).unsigned_abs() as usize).push(digits),
        };
    }
    let (first, rest) = digits.split_at(1);
    let point: &[u8] = if rest.is_empty() { b"" } else { b"." };
    let sign: &[u8] = if power < 0 { b"e-" } else { b"e+" };
    text.push(first).push(point).push(rest).push(sign).push(itoa::Buffer::new().format(power.unsigned_abs()).as_bytes())
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
