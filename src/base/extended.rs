//! Floats of 64-bit mantissa and 15-bit exponent, in software: what C calls `long double` on x86-64.
//!
//! Redis adds floats in this format, and prints 17 digits after the point, so its rounding errors are visible from about
//! 1000 upwards. To answer byte for byte what Redis answers, the same arithmetic is done here: correctly rounded reading,
//! addition, exact printing. Deliberately absent: every other operation, and not-a-number (Redis refuses it everywhere).
//!
//! Work and memory are bounded by the length of the text (at most 5 KiB) and by the format's range (about 5000 digits).

use std::fmt;

/// Bits of a mantissa.
const BITS: u32 = 64;

/// Exponent of the last bit of the smallest numbers.
const LEAST_EXPONENT: i64 = -16_445;

/// Exponent of the last bit of the largest numbers.
const GREATEST_EXPONENT: i64 = 16_384 - BITS as i64;

/// Beyond this many digits before the point a number is infinite, or this many zeros after it, nothing.
const DIGITS_OF_RANGE: i64 = 5_000;

/// A number of extended precision, or an infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magnitude {
    /// `mantissa · 2^exponent`; the mantissa's highest bit is set unless the exponent is the least.
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    Infinite,
}

impl Extended {
    /// The number that `text` is, as C's `strtold` reads it, correctly rounded. `None` for what is no number, has spaces,
    /// or is finite and does not fit the range.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (negative, mantissa, exponent) = match Literal::parse(text)? {
            Literal::Infinity { negative } => return Some(Extended { negative, magnitude: Magnitude::Infinite }),
            Literal::Hexadecimal { negative, mantissa, exponent } => (negative, mantissa, exponent),
            Literal::Decimal { negative, number } => {
                let (mantissa, exponent) = number.binary()?;
                (negative, mantissa, exponent)
            }
        };
        let value = Self::rounded(negative, mantissa, exponent);
        (value.is_finite() && (mantissa == 0 || !value.is_zero())).then_some(value)
    }

    /// Whether this is a number, not an infinity.
    pub fn is_finite(self) -> bool {
        self.magnitude != Magnitude::Infinite
    }

    /// The sum, rounded to the nearest, ties to even; `None` for infinities of both signs.
    #[allow(clippy::should_implement_trait, reason = "not total: there is no not-a-number to answer")]
    pub fn add(self, other: Self) -> Option<Self> {
        use Magnitude::{Finite, Infinite};
        match (self.magnitude, other.magnitude) {
            (Infinite, Infinite) => (self.negative == other.negative).then_some(self),
            (Infinite, _) => Some(self),
            (_, Infinite) => Some(other),
            (Finite { mantissa: 0, .. }, _) => Some(other),
            (_, Finite { mantissa: 0, .. }) => Some(self),
            (Finite { mantissa: a, exponent: x }, Finite { mantissa: b, exponent: y }) => {
                if (x, a) >= (y, b) {
                    Some(self.plus_smaller(a, x, other, b, y))
                } else {
                    Some(other.plus_smaller(b, y, self, a, x))
                }
            }
        }
    }

    fn is_zero(self) -> bool {
        matches!(self.magnitude, Magnitude::Finite { mantissa: 0, .. })
    }

    /// 62 bits below the larger mantissa hold what of the smaller one can decide the rounding; whatever lies below those
    /// is remembered in the last bit.
    fn plus_smaller(self, large: u64, exponent: i64, other: Self, small: u64, small_exponent: i64) -> Self {
        const GUARD: u32 = 62;
        let large = u128::from(large) << GUARD;
        let distance = u32::try_from(exponent.saturating_sub(small_exponent)).unwrap_or(u32::MAX);
        let small = shift_right_sticky(u128::from(small) << GUARD, distance);
        let sum =
            if self.negative == other.negative { large.saturating_add(small) } else { large.saturating_sub(small) };
        Self::rounded(self.negative, sum, exponent.saturating_sub(i64::from(GUARD)))
    }

    fn rounded(negative: bool, mantissa: u128, exponent: i64) -> Self {
        let (mantissa, exponent) = round(mantissa, exponent, BITS, LEAST_EXPONENT);
        let infinite = exponent > GREATEST_EXPONENT;
        Extended {
            negative,
            magnitude: if infinite { Magnitude::Infinite } else { Magnitude::Finite { mantissa, exponent } },
        }
    }
}

/// 17 digits after the point, exact and then rounded to the nearest, ties to even; zeros at the end are left off, and
/// there is neither exponent nor negative zero.
impl fmt::Display for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        match self.magnitude {
            Magnitude::Infinite => write!(f, "{sign}inf"),
            Magnitude::Finite { mantissa, exponent } if exponent >= 0 => {
                write!(f, "{}{}", if mantissa == 0 { "" } else { sign }, Natural::shifted(mantissa, exponent).decimal())
            }
            Magnitude::Finite { mantissa, exponent } => match whole_and_fraction(mantissa, exponent.unsigned_abs()) {
                (0, 0) => f.write_str("0"),
                (whole, 0) => write!(f, "{sign}{whole}"),
                (whole, fraction) => {
                    let digits = format!("{fraction:017}");
                    write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
                }
            },
        }
    }
}

/// `mantissa · 2^-places` as whole part and number of 10^-17.
fn whole_and_fraction(mantissa: u64, places: u64) -> (u64, u64) {
    const UNIT: u128 = 100_000_000_000_000_000;
    // Under 2^122: from 122 places on, less than half of the last digit.
    if places >= 122 {
        return (0, 0);
    }
    let whole = if places < 64 { mantissa >> places } else { 0 };
    let fraction = if places < 64 { mantissa & ((1 << places) - 1) } else { mantissa };
    let (digits, _) = round_shift(u128::from(fraction) * UNIT, places as u32);
    if digits == UNIT { (whole.saturating_add(1), 0) } else { (whole, digits as u64) }
}

/// `mantissa · 2^exponent` with the mantissa rounded to `bits` bits, ties to even, or to fewer where the exponent would
/// fall below `least`. The lowest bit of a mantissa longer than that may stand for any remainder.
pub(super) fn round(mantissa: u128, exponent: i64, bits: u32, least: i64) -> (u64, i64) {
    let width = i64::from(128 - mantissa.leading_zeros());
    if mantissa == 0 {
        return (0, least);
    }
    let shift = width.saturating_sub(i64::from(bits)).max(least.saturating_sub(exponent));
    let exponent = exponent.saturating_add(shift);
    if shift <= 0 {
        return ((mantissa << shift.unsigned_abs().min(127)) as u64, exponent);
    }
    match round_shift(mantissa, u32::try_from(shift).unwrap_or(u32::MAX)).0 {
        carried if carried >> bits != 0 => ((carried >> 1) as u64, exponent.saturating_add(1)),
        rounded => (rounded as u64, exponent),
    }
}

/// `value / 2^places`, to the nearest, ties to even, and whether that was exact.
fn round_shift(value: u128, places: u32) -> (u128, bool) {
    if places == 0 {
        return (value, true);
    }
    let quotient = value.checked_shr(places).unwrap_or(0);
    let remainder = value.wrapping_sub(quotient.checked_shl(places).unwrap_or(0));
    let up = match 1u128.checked_shl(places.saturating_sub(1)) {
        Some(half) => remainder > half || (remainder == half && quotient & 1 == 1),
        None => false,
    };
    (quotient.saturating_add(u128::from(up)), remainder == 0)
}

fn shift_right_sticky(value: u128, places: u32) -> u128 {
    match value.checked_shr(places) {
        Some(shifted) => shifted | u128::from(shifted.checked_shl(places) != Some(value)),
        None => u128::from(value != 0),
    }
}

/// A float literal as C's `strtod` takes it, without what Redis refuses: spaces and not-a-number.
pub(super) enum Literal<'a> {
    Infinity {
        negative: bool,
    },
    /// `mantissa · 2^exponent`; the mantissa's lowest bit may stand for any remainder.
    Hexadecimal {
        negative: bool,
        mantissa: u128,
        exponent: i64,
    },
    Decimal {
        negative: bool,
        number: Decimal<'a>,
    },
}

impl<'a> Literal<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = split_sign(text);
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Some(Literal::Infinity { negative });
        }
        if let [b'0', b'x' | b'X', digits @ ..] = rest {
            let (mantissa, exponent) = hexadecimal(digits)?;
            return Some(Literal::Hexadecimal { negative, mantissa, exponent });
        }
        Some(Literal::Decimal { negative, number: Decimal::parse(rest)? })
    }
}

/// Digits around a point and a power of ten.
pub(super) struct Decimal<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let number = Number::split(text, u8::is_ascii_digit, b'e')?;
        Some(Decimal { whole: number.whole, fraction: number.fraction, exponent: number.exponent })
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits().all(|digit| digit == b'0')
    }

    /// The number as `mantissa · 2^exponent`, with a mantissa long enough to be rounded once; `None` far out of range.
    fn binary(&self) -> Option<(u128, i64)> {
        let significant = self.digits().skip_while(|&digit| digit == b'0').count();
        if significant == 0 {
            return Some((0, 0));
        }
        let scale = self.exponent.saturating_sub(self.fraction.len() as i64);
        if scale.saturating_add(significant as i64).abs() > DIGITS_OF_RANGE {
            return None;
        }
        let mut digits = Natural::default();
        self.digits().for_each(|digit| digits.multiply_add(10, u32::from(digit - b'0')));
        let power = scale.unsigned_abs();
        if scale >= 0 {
            digits.times_power_of_ten(power);
            return Some(digits.leading_bits());
        }
        let mut divisor = Natural(vec![1]);
        divisor.times_power_of_ten(power);
        Some(digits.divided_by(divisor))
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).copied()
    }
}

/// A literal without its sign, taken apart.
struct Number<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Number<'a> {
    fn split(text: &'a [u8], is_digit: fn(&u8) -> bool, mark: u8) -> Option<Self> {
        let (whole, rest) = split_digits(text, is_digit);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest, is_digit),
            rest => (&[][..], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [found, rest @ ..] if found.eq_ignore_ascii_case(&mark) => parse_exponent(rest)?,
            _ => return None,
        };
        Some(Number { whole, fraction, exponent })
    }
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

fn split_digits(text: &[u8], is_digit: fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let count = text.iter().take_while(|byte| is_digit(byte)).count();
    text.split_at(count)
}

/// Saturates far beyond every range.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, &digit| (value * 10 + i64::from(digit - b'0')).min(1_000_000_000));
    Some(if negative { -value } else { value })
}

fn hexadecimal(text: &[u8]) -> Option<(u128, i64)> {
    let number = Number::split(text, u8::is_ascii_hexdigit, b'p')?;
    let mut mantissa = 0u128;
    let mut exponent = number.exponent.saturating_sub(4 * number.fraction.len() as i64);
    for digit in number.whole.iter().chain(number.fraction).filter_map(|&digit| char::from(digit).to_digit(16)) {
        if mantissa >> 120 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
        } else {
            mantissa |= u128::from(digit != 0);
            exponent = exponent.saturating_add(4);
        }
    }
    Some((mantissa, exponent))
}

/// A natural number of any size, 32 bits a limb, lowest first; just what reading and printing need.
#[derive(Default)]
struct Natural(Vec<u32>);

impl Natural {
    fn shifted(mantissa: u64, places: i64) -> Self {
        let mut number = Natural(vec![mantissa as u32, (mantissa >> 32) as u32]);
        number.shift_left(places.unsigned_abs());
        number
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn times_power_of_ten(&mut self, power: u64) {
        (0..power / 9).for_each(|_| self.multiply_add(1_000_000_000, 0));
        (0..power % 9).for_each(|_| self.multiply_add(10, 0));
    }

    fn shift_left(&mut self, places: u64) {
        self.multiply_add(1 << (places % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, (places / 32) as usize));
    }

    fn bit_length(&self) -> u64 {
        let zeros = self.0.iter().rev().take_while(|&&limb| limb == 0).count();
        let limbs = self.0.len() - zeros;
        let highest = limbs.checked_sub(1).and_then(|last| self.0.get(last)).copied().unwrap_or(0);
        limbs as u64 * 32 - u64::from(if limbs == 0 { 0 } else { highest.leading_zeros() })
    }

    /// The highest 97 bits or more, the rest remembered in the lowest of them, and the exponent of that one.
    fn leading_bits(&self) -> (u128, i64) {
        let limbs = self.bit_length().div_ceil(32) as usize;
        let below = limbs.saturating_sub(4);
        let (rest, leading) = self.0.split_at(below.min(self.0.len()));
        let bits = leading.iter().rev().fold(0u128, |bits, &limb| bits << 32 | u128::from(limb));
        (bits | u128::from(rest.iter().any(|&limb| limb != 0)), below as i64 * 32)
    }

    /// The quotient's first 68 bits, the rest remembered in the lowest of them, and the exponent of that one. Schoolbook,
    /// bit by bit: numbers here have some two limbs, at the most five hundred.
    fn divided_by(mut self, mut divisor: Natural) -> (u128, i64) {
        const STEPS: i64 = 68;
        let difference = self.bit_length() as i64 - divisor.bit_length() as i64;
        if difference < 0 { &mut self } else { &mut divisor }.shift_left(difference.unsigned_abs());
        let mut quotient = 0u128;
        for _ in 0..STEPS {
            let fits = self.at_least(&divisor);
            if fits {
                self.subtract(&divisor);
            }
            quotient = quotient << 1 | u128::from(fits);
            self.multiply_add(2, 0);
        }
        (quotient | u128::from(self.bit_length() != 0), difference - (STEPS - 1))
    }

    fn at_least(&self, other: &Natural) -> bool {
        let limbs = self.0.len().max(other.0.len());
        let limb = |number: &Natural, at: usize| number.0.get(at).copied().unwrap_or(0);
        (0..limbs)
            .rev()
            .map(|at| limb(self, at).cmp(&limb(other, at)))
            .find(|order| order.is_ne())
            .is_none_or(|order| order.is_gt())
    }

    /// Of a number that is at least `other`.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = false;
        for (limb, less) in self.0.iter_mut().zip(other.0.iter().copied().chain(std::iter::repeat(0))) {
            let (once, first) = limb.overflowing_sub(less);
            let (twice, second) = once.overflowing_sub(u32::from(borrow));
            *limb = twice;
            borrow = first || second;
        }
    }

    fn divide_small(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0u64;
        for limb in self.0.iter_mut().rev() {
            let value = remainder << 32 | u64::from(*limb);
            *limb = (value / u64::from(divisor)) as u32;
            remainder = value % u64::from(divisor);
        }
        remainder as u32
    }

    fn decimal(mut self) -> String {
        let mut groups = Vec::new();
        while self.bit_length() != 0 {
            groups.push(self.divide_small(1_000_000_000));
        }
        let leading = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().fold(leading, |text, group| text + &format!("{group:09}"))
    }
}
