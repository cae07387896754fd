//! The thread that notices that whoever started this process is gone: its end of our standard input closes then, in
//! whichever way it died. For nodes started with `exit-with-stdin yes`.

use std::io::{self, Read};
use std::thread;

/// Calls `then` when the standard input has closed. What is written to it is passed over.
pub fn when_stdin_closes(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("lifeline".to_owned()).spawn(move || until_closed(io::stdin(), then)).map(drop)
}

fn until_closed(mut input: impl Read, then: impl FnOnce()) {
    let mut passed_over = [0; 256];
    loop {
        match input.read(&mut passed_over) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return then(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn it_waits_for_the_end_of_its_input_and_no_longer() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || until_closed(&mut reader, move || tell.send(()).unwrap()));
        io::Write::write_all(&mut &writer, b"noise\n").unwrap();
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(writer);
        waiting.join().unwrap();
        assert_eq!(told.recv(), Ok(()));
    }
}
