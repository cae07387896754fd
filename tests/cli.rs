//! The program as people run it: exit codes, what is printed where, and a cluster on one machine.
#![allow(clippy::unwrap_used, reason = "a helper of a test that cannot go on ends the test")]

mod support {
    use std::io::Write;
    use std::process::{Command, Output, Stdio};

    /// Runs the program with an environment without settings, and waits for its end.
    pub fn redynamo(words: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redynamo"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REDYNAMO_") {
                command.env_remove(name);
            }
        }
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that does not read its input may have closed it.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    pub fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

use support::{redynamo, text};

#[test]
fn version_and_help_go_to_standard_output() {
    let output = redynamo(&["--version"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("redynamo v=0.1.0 redis_version=7.2."), "{}", text(&output.stdout));
    let output = redynamo(&["--help"], "");
    assert_eq!(output.status.code(), Some(0));
    for part in ["redynamo [CONFIG-FILE]", "redynamo local 3", "--port 6379", "redynamo.conf"] {
        assert!(text(&output.stdout).contains(part), "{part}");
    }
}

#[test]
fn an_unknown_directive_ends_the_program_with_code_1_and_a_suggestion() {
    let output = redynamo(&["--maxmemry", "1gb"], "");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("FATAL CONFIG FILE ERROR") && said.contains(">>> '--maxmemry 1gb'"), "{said}");
    assert!(said.contains("Did you mean 'maxmemory'?"), "{said}");
}

#[test]
fn an_error_in_a_file_is_shown_with_file_line_and_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.conf");
    std::fs::write(&file, "# first\nport 6379\nread-qorum 2\n").unwrap();
    let output = redynamo(&[file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{}:3\n>>> 'read-qorum 2'", file.display())), "{said}");
    assert!(said.contains("Did you mean 'read-quorum'?"), "{said}");
    let output = redynamo(&["/no/such/file.conf"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("can't open config file '/no/such/file.conf'"));
}

#[test]
fn going_into_the_background_is_refused_with_advice() {
    let output = redynamo(&["--daemonize", "yes"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("service manager"), "{}", text(&output.stderr));
}

#[test]
fn a_configuration_can_be_checked_without_starting_a_node() {
    let output = redynamo(&["--check-config", "--appendonly", "yes", "--daemonize", "no", "-"], "port 7000\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("ignored: appendonly") && said.contains("127.0.0.1:7000"), "{said}");
    assert_eq!(redynamo(&["--check-config", "-"], "port x\n").status.code(), Some(1));
}

#[test]
fn pinging_nobody_fails() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = redynamo(&["ping", "--port", &free.to_string(), "--peer-port", "1", "--admin-port", "off"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does not answer"), "{}", text(&output.stderr));
}

/// `redynamo local`, over a stand-in for a node: this test program, told by its words to be one.
mod local {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use redynamo::cli::local::{Plan, run};
    use redynamo::cli::ping::ping;
    use tokio::sync::oneshot;

    /// More than any step takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    type Said = Arc<Mutex<Vec<u8>>>;

    /// The words that make this test program a node.
    fn program() -> Vec<String> {
        let this = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let words = [this.as_str(), "--exact", "local::stand_in_for_a_node", "--nocapture", "--"];
        words.map(str::to_owned).to_vec()
    }

    /// A node that answers every connection with PONG until its standard input closes. Without a `--port` among the
    /// words, as in an ordinary run of the tests, it checks only that it would be found.
    #[test]
    fn stand_in_for_a_node() {
        let words: Vec<String> = std::env::args().collect();
        let Some(port) = words.iter().rposition(|word| word == "--port").and_then(|at| words.get(at + 1)) else {
            let [this, _, name, ..] = &program()[..] else { panic!() };
            let listed = std::process::Command::new(this).arg("--list").output().unwrap();
            assert!(String::from_utf8(listed.stdout).unwrap().contains(&format!("{name}: test")));
            return;
        };
        if words.iter().any(|word| word == "broken") {
            eprintln!("the stand-in is broken");
            std::process::exit(3);
        }
        let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
        println!("\nlistening on {port}");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(b"+PONG\r\n");
            }
        });
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        println!("\nthe lifeline is cut");
        std::process::exit(0);
    }

    /// A run of three ports that were free a moment ago, and so were those of the nodes for each other. From a place of
    /// its own for each test.
    pub fn free_ports(place: u16) -> u16 {
        let first = 10_000 + u16::try_from(std::process::id() % 5_000).unwrap() + place;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let ports =
            (first..20_000).step_by(7).find(|start| (0..3).all(|i| free(start + i) && free(start + i + 10_000)));
        ports.expect("no free ports")
    }

    fn plan(nodes: u16, words: &[&str]) -> (Plan, u16) {
        let port = free_ports(nodes * 100);
        let port_text = port.to_string();
        let common = ["--port", &port_text, "--dir", "/no/such", "--admin-port", "off"];
        let words = common.iter().chain(words).map(|word| (*word).to_owned()).collect();
        (Plan::new(nodes, words, Vec::new()).unwrap(), port)
    }

    fn text(said: &Said) -> String {
        String::from_utf8(said.lock().clone()).unwrap()
    }

    async fn until(said: &Said, wanted: &str) {
        let heard = async {
            while !text(said).contains(wanted) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, heard).await.is_err() {
            panic!("'{wanted}' was not said in:\n{}", text(said));
        }
    }

    fn pid_of(said: &Said, node: &str) -> String {
        let text = text(said);
        let (_, after) = text.split_once(&format!("{node} is starting, pid ")).unwrap();
        after.lines().next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn three_nodes_start_one_may_die_and_the_rest_stop_when_told() {
        let (plan, port) = plan(3, &[]);
        let said = Said::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let output = Arc::clone(&said);
        let running = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap() };
            run(&plan, &program(), stopped, output).await
        });

        until(&said, "3 nodes are ready").await;
        until(&said, &format!("node-2 | listening on {}", port + 1)).await;
        assert!(text(&said).contains(&format!("redis-cli -p {}", port + 2)));

        let status = std::process::Command::new("sh")
            .args(["-c", &format!("kill -9 {}", pid_of(&said, "node-2"))])
            .status()
            .unwrap();
        assert!(status.success());
        until(&said, "node-2 is dead: signal: 9 (SIGKILL); 2 nodes are left. To bring it back:").await;
        until(&said, &format!("--node-name node-2 --dir /no/such/node-2 --port {} --join 127.0.0.1:", port + 1)).await;

        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap(), Ok(()));
        for node in ["node-1", "node-3"] {
            assert!(text(&said).contains(&format!("{node} | the lifeline is cut")), "{}", text(&said));
        }
        for node in 0..3 {
            assert!(ping(&format!("127.0.0.1:{}", port + node), PATIENCE).is_err(), "node {node} still answers");
        }
    }

    #[tokio::test]
    async fn a_node_that_fails_to_start_ends_the_cluster_with_an_error() {
        let (plan, _) = plan(2, &["--zone", "broken"]);
        let said = Said::default();
        let output = Arc::clone(&said);
        let result = tokio::time::timeout(PATIENCE, run(&plan, &program(), std::future::pending(), output)).await;
        let error = result.unwrap().unwrap_err();
        assert!(error.contains("failed to start: exit status: 3"), "{error}");
        assert!(text(&said).contains("node-1 | the stand-in is broken"), "{}", text(&said));
    }
}

/// `redynamo local 3` as people run it: the program itself, real nodes.
mod real_local {
    use std::fs::File;
    use std::path::Path;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use redynamo::cli::ping::ping;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// The program, ended with the test however that ends; its nodes end with it.
    struct Local {
        child: Child,
        said: tempfile::NamedTempFile,
        port: u16,
    }

    impl Local {
        fn start(dir: &Path, place: u16) -> Local {
            let port = super::local::free_ports(place);
            let said = tempfile::NamedTempFile::new().unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_redynamo"));
            command.args(["local", "3", "--port", &port.to_string(), "--admin-port", "off", "--dir"]).arg(dir);
            let log = File::create(said.path()).unwrap();
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            Local { child: command.spawn().unwrap(), said, port }
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.said.path()).unwrap()
        }

        fn until(&self, wanted: &str) {
            let began = Instant::now();
            while !self.text().contains(wanted) {
                assert!(began.elapsed() < PATIENCE, "'{wanted}' was not said in:\n{}", self.text());
                sleep(Duration::from_millis(10));
            }
        }

        fn signal(&self, pid: &str, name: &str) {
            assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
        }

        fn ended(&mut self) -> ExitStatus {
            let began = Instant::now();
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.text());
                sleep(Duration::from_millis(10));
            }
        }

        fn until_silent(&self) {
            let began = Instant::now();
            for node in 0..3 {
                while ping(&format!("127.0.0.1:{}", self.port + node), PATIENCE).is_ok() {
                    assert!(began.elapsed() < PATIENCE, "node {node} still answers");
                    sleep(Duration::from_millis(10));
                }
            }
        }
    }

    impl Drop for Local {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn pid_of(text: &str, node: &str) -> String {
        let (_, after) = text.split_once(&format!("{node} is starting, pid ")).unwrap();
        after.lines().next().unwrap().to_owned()
    }

    #[test]
    fn three_nodes_start_one_may_die_and_the_rest_stop_on_ctrl_c() {
        let dir = tempfile::tempdir().unwrap();
        let mut local = Local::start(dir.path(), 1_000);
        local.until("3 nodes are ready");
        for node in 1..=3 {
            local.until(&format!("node-{node} | "));
            assert!(local.text().contains(&format!("redis-cli -p {}", local.port + node - 1)));
        }
        assert_eq!(local.text().matches("Ready to accept connections").count(), 3, "{}", local.text());

        let victim = pid_of(&local.text(), "node-2");
        local.signal(&victim, "KILL");
        local.until("node-2 is dead: signal: 9 (SIGKILL); 2 nodes are left. To bring it back:");
        // The command that is printed does bring it back.
        let text = local.text();
        let command = text.lines().find(|line| line.contains("--node-name node-2 --dir")).unwrap().trim().to_owned();
        let returned = Command::new("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()).spawn();
        let mut returned = Ended(returned.unwrap());
        let began = Instant::now();
        while ping(&format!("127.0.0.1:{}", local.port + 1), PATIENCE).is_err() {
            assert!(began.elapsed() < PATIENCE, "it does not return: {command}");
            sleep(Duration::from_millis(10));
        }
        let pid = local.child.id().to_string();
        local.signal(&pid, "INT");
        assert_eq!(local.ended().code(), Some(0), "{}", local.text());
        assert!(local.text().contains("All nodes have stopped."), "{}", local.text());
        returned.0.kill().unwrap();
        returned.0.wait().unwrap();
        local.until_silent();
    }

    /// A child that is not left behind.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn nodes_end_in_order_when_their_parent_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut local = Local::start(dir.path(), 2_000);
        local.until("3 nodes are ready");
        local.child.kill().unwrap();
        local.child.wait().unwrap();
        local.until_silent();
        // The directories are free again, and nothing was lost on the way.
        let mut again = Local::start(dir.path(), 3_000);
        again.until("3 nodes are ready");
        let pid = again.child.id().to_string();
        again.signal(&pid, "TERM");
        assert_eq!(again.ended().code(), Some(0), "{}", again.text());
    }
}
