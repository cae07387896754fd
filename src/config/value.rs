//! Kinds of values: how words become the canonical text of a setting, and what is said when they do not.
//! Texts of errors are those of Redis 7.2, which client test-suites compare.

use super::special::Reader;
use crate::base::num;

/// What a setting's value is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A whole number, both bounds included.
    Int {
        /// The least.
        min: i128,
        /// The most.
        max: i128,
    },
    /// A whole number written in octal, from 0.
    Octal {
        /// The most.
        max: u32,
    },
    /// Bytes, with Redis' units: `1k` is 1000, `1kb` is 1024, likewise `m mb g gb`.
    Bytes {
        /// The least.
        min: i128,
        /// The most.
        max: i128,
    },
    /// Bytes, or `N%` up to 100 %.
    BytesOrPercent,
    /// A TCP port from 0 to 65535, or `off`.
    PortOrOff,
    /// One word of these.
    Choice(&'static [&'static str]),
    /// Several words of these; the first stands for none.
    Flags(&'static [&'static str]),
    /// Any text.
    Text,
    /// A path, kept absolute so that it means the same wherever it is read.
    Path,
    /// A list with a reader of its own.
    Words(Reader),
}

impl Kind {
    /// Whether one statement may have several words after the name.
    pub fn takes_many(&self) -> bool {
        matches!(self, Kind::Flags(_) | Kind::Words(_))
    }

    /// The canonical text of `words`, as `CONFIG GET` prints it. `previous` is the setting's text until now: some lists
    /// add to it. The error is Redis' text.
    pub fn read(&self, words: &[String], previous: &str) -> Result<String, String> {
        let word = match words {
            [word] => word.as_str(),
            _ if self.takes_many() => "",
            _ => return Err("wrong number of arguments".to_owned()),
        };
        match self {
            Kind::Bool => read_bool(word),
            Kind::Int { min, max } => within(integer(word)?, *min, *max),
            Kind::Octal { max } => read_octal(word, *max),
            Kind::Bytes { min, max } => within(bytes(word).ok_or("argument must be a memory value")?, *min, *max),
            Kind::BytesOrPercent => read_bytes_or_percent(word),
            Kind::PortOrOff if word.eq_ignore_ascii_case("off") => Ok("off".to_owned()),
            Kind::PortOrOff => within(integer(word)?, 0, 65535),
            Kind::Choice(names) => choose(names, word),
            Kind::Flags(names) => read_flags(names, words),
            Kind::Text => Ok(word.to_owned()),
            Kind::Path => read_path(word),
            Kind::Words(read) => read(words, previous),
        }
    }

    /// The text as people write it: bytes with the largest unit that divides them, else as it is.
    pub fn readable(&self, text: &str) -> String {
        let Kind::Bytes { .. } = self else { return text.to_owned() };
        match text.parse::<u64>() {
            Ok(bytes) if bytes > 0 && bytes % (1 << 30) == 0 => format!("{}gb", bytes >> 30),
            Ok(bytes) if bytes > 0 && bytes % (1 << 20) == 0 => format!("{}mb", bytes >> 20),
            Ok(bytes) if bytes > 0 && bytes % (1 << 10) == 0 => format!("{}kb", bytes >> 10),
            _ => text.to_owned(),
        }
    }
}

/// A whole number as Redis' `string2ll` takes it: no blanks, no plus, no leading zero.
pub(super) fn integer(word: &str) -> Result<i128, String> {
    let wrong = || "argument couldn't be parsed into an integer".to_owned();
    num::parse_i64(word.as_bytes()).map(i128::from).ok_or_else(wrong)
}

/// Bytes with a unit; `None` if it is not that, or more than 64 bits.
pub(super) fn bytes(word: &str) -> Option<i128> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at_checked(digits)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // No digits are a zero, as in Redis.
    let number = if number.is_empty() { 0 } else { number.parse::<u64>().ok()? };
    number.checked_mul(factor).map(i128::from)
}

/// The word of `names` that `word` is, whatever its case.
pub(super) fn choose(names: &[&str], word: &str) -> Result<String, String> {
    match names.iter().find(|name| name.eq_ignore_ascii_case(word)) {
        Some(name) => Ok((*name).to_owned()),
        None => Err(format!("argument(s) must be one of the following: {}", names.join(", "))),
    }
}

fn read_bool(word: &str) -> Result<String, String> {
    choose(&["yes", "no"], word).map_err(|_| "argument must be 'yes' or 'no'".to_owned())
}

fn within(number: i128, min: i128, max: i128) -> Result<String, String> {
    if (min..=max).contains(&number) {
        return Ok(number.to_string());
    }
    Err(format!("argument must be between {min} and {max} inclusive"))
}

fn read_octal(word: &str, max: u32) -> Result<String, String> {
    match u32::from_str_radix(word, 8) {
        Ok(number) if number <= max => Ok(format!("{number:o}")),
        Ok(_) => Err(format!("argument must be between 0 and {max:o} inclusive")),
        Err(_) => Err("argument couldn't be parsed as an octal number".to_owned()),
    }
}

fn read_bytes_or_percent(word: &str) -> Result<String, String> {
    let wrong = || "argument must be a memory or percent value".to_owned();
    let Some(percent) = word.strip_suffix('%') else {
        return within(bytes(word).ok_or_else(wrong)?, 0, i128::from(i64::MAX));
    };
    match integer(percent).map_err(|_| wrong())? {
        0 => Ok("0".to_owned()),
        percent @ 1..=100 => Ok(format!("{percent}%")),
        101.. => Err("percentage argument must be less or equal to 100".to_owned()),
        _ => Err(wrong()),
    }
}

fn read_flags(names: &[&str], words: &[String]) -> Result<String, String> {
    let words = if words.is_empty() { &[String::new()] } else { words };
    let chosen = words.iter().map(|word| choose(names, word)).collect::<Result<Vec<_>, _>>()?;
    let text: Vec<&str> =
        names.iter().skip(1).copied().filter(|name| chosen.iter().any(|chosen| chosen == name)).collect();
    if text.contains(&"save") && text.contains(&"nosave") {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned());
    }
    Ok(if text.is_empty() { names.first().copied().unwrap_or_default().to_owned() } else { text.join(" ") })
}

fn read_path(word: &str) -> Result<String, String> {
    let path = std::path::absolute(word).map_err(|error| error.to_string())?;
    // Taken apart and put together again it has no slash at its end.
    let path: std::path::PathBuf = path.components().collect();
    path.into_os_string().into_string().map_err(|_| "the path is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(kind: Kind, word: &str) -> Result<String, String> {
        kind.read(&[word.to_owned()], "")
    }

    #[test]
    fn bytes_take_the_units_of_redis() {
        let kind = Kind::Bytes { min: 0, max: u64::MAX.into() };
        let cases = [
            ("0", "0"),
            ("", "0"),
            ("7b", "7"),
            ("1k", "1000"),
            ("1kb", "1024"),
            ("2M", "2000000"),
            ("512MB", "536870912"),
        ];
        for (word, text) in cases.into_iter().chain([("1g", "1000000000"), ("1Gb", "1073741824")]) {
            assert_eq!(read(kind, word).as_deref(), Ok(text), "{word}");
        }
        for word in ["x", "-1", "1tb", "1 kb", "1.5gb", "99999999999gb", "\u{e9}"] {
            assert_eq!(read(kind, word), Err("argument must be a memory value".to_owned()), "{word}");
        }
    }

    #[test]
    fn numbers_out_of_bounds_name_the_bounds() {
        let kind = Kind::Int { min: 1, max: 65535 };
        assert_eq!(read(kind, "65535").as_deref(), Ok("65535"));
        for word in ["0", "-1", "65536"] {
            assert_eq!(read(kind, word), Err("argument must be between 1 and 65535 inclusive".to_owned()), "{word}");
        }
        for word in ["", "x", "+1", "01", " 1", "1.0", "-0"] {
            assert_eq!(read(kind, word), Err("argument couldn't be parsed into an integer".to_owned()), "{word}");
        }
    }

    #[test]
    fn words_of_a_choice_are_taken_in_any_case_and_kept_in_theirs() {
        let kind = Kind::Choice(&["everysec", "always", "no"]);
        assert_eq!(read(kind, "Always").as_deref(), Ok("always"));
        let error = "argument(s) must be one of the following: everysec, always, no";
        assert_eq!(read(kind, "sometimes"), Err(error.to_owned()));
        assert_eq!(read(Kind::Bool, "YES").as_deref(), Ok("yes"));
        assert_eq!(read(Kind::Bool, "1"), Err("argument must be 'yes' or 'no'".to_owned()));
    }

    #[test]
    fn flags_octals_and_percents_read_as_in_redis() {
        let flags = Kind::Flags(&["default", "save", "nosave", "now", "force"]);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(flags.read(&words("force Now"), "").as_deref(), Ok("now force"));
        assert_eq!(flags.read(&words("default"), "").as_deref(), Ok("default"));
        assert!(flags.read(&words("save nosave"), "").is_err());
        assert_eq!(read(Kind::Octal { max: 0o777 }, "0700").as_deref(), Ok("700"));
        let error = "argument must be between 0 and 777 inclusive";
        assert_eq!(read(Kind::Octal { max: 0o777 }, "1000"), Err(error.to_owned()));
        assert_eq!(read(Kind::BytesOrPercent, "5%").as_deref(), Ok("5%"));
        assert_eq!(read(Kind::BytesOrPercent, "1kb").as_deref(), Ok("1024"));
        assert!(read(Kind::BytesOrPercent, "101%").is_err());
        assert!(read(Kind::BytesOrPercent, "-5%").is_err());
    }

    #[test]
    fn a_port_may_be_off_where_that_means_something() {
        assert_eq!(read(Kind::PortOrOff, "OFF").as_deref(), Ok("off"));
        assert_eq!(read(Kind::PortOrOff, "9121").as_deref(), Ok("9121"));
        assert_eq!(read(Kind::PortOrOff, "65536"), Err("argument must be between 0 and 65535 inclusive".to_owned()));
    }

    proptest! {
        #[test]
        fn readable_bytes_read_back_as_themselves(bytes in any::<u64>(), shift in 0u32..40) {
            let kind = Kind::Bytes { min: 0, max: u64::MAX.into() };
            let text = (bytes >> shift << shift).to_string();
            prop_assert_eq!(read(kind, &kind.readable(&text)), Ok(text));
        }
    }
}
