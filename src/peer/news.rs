//! Messages to subscribers and questions about them, as bytes.

use bytes::{BufMut, BytesMut};

use super::message::{put_all, put_option, read_all, read_option};
use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes};
use crate::commands::pubsub::{Listening, News};

pub(super) fn put_news(news: &News, out: &mut BytesMut) {
    out.put_u8(news.shard.into());
    put_bytes(out, &news.channel);
    put_bytes(out, &news.message);
}

pub(super) fn read_news(reader: &mut Reader) -> Decoded<News> {
    Ok(News { shard: reader.u8()? != 0, channel: reader.bytes()?, message: reader.bytes()? })
}

pub(super) fn put_listening(asked: &Listening, out: &mut BytesMut) {
    match asked {
        Listening::Channels { shard, pattern } => {
            out.put_u8(1);
            out.put_u8((*shard).into());
            put_option(out, pattern.as_ref(), |out, pattern| put_bytes(out, pattern));
        }
        Listening::Numbers { shard, channels } => {
            out.put_u8(2);
            out.put_u8((*shard).into());
            put_all(out, channels, |out, channel| put_bytes(out, channel));
        }
        Listening::Patterns => out.put_u8(3),
    }
}

pub(super) fn read_listening(reader: &mut Reader) -> Decoded<Listening> {
    match reader.u8()? {
        1 => Ok(Listening::Channels { shard: reader.u8()? != 0, pattern: read_option(reader, Reader::bytes)? }),
        2 => Ok(Listening::Numbers { shard: reader.u8()? != 0, channels: read_all(reader, Reader::bytes)? }),
        3 => Ok(Listening::Patterns),
        _ => Err(DecodeError::Unknown("question about subscribers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_and_questions_arrive_as_they_were_sent() {
        let news = News { shard: true, channel: "c".into(), message: "m\r\n".into() };
        let mut wire = BytesMut::new();
        put_news(&news, &mut wire);
        assert_eq!(read_news(&mut Reader::new(wire.freeze())), Ok(news));
        for asked in [
            Listening::Channels { shard: true, pattern: Some("a*".into()) },
            Listening::Channels { shard: false, pattern: None },
            Listening::Numbers { shard: false, channels: vec!["a".into(), "".into()] },
            Listening::Patterns,
        ] {
            let mut wire = BytesMut::new();
            put_listening(&asked, &mut wire);
            assert_eq!(read_listening(&mut Reader::new(wire.freeze())), Ok(asked));
        }
    }
}
