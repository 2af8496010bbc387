//! Nodes as child processes, which are killed when the test ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::{PATIENCE, until};

/// The options of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    /// Its id.
    pub(crate) id: u16,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Settings that extend or override the defaults.
    pub(crate) extra: Value,
}

impl NodeOptions {
    pub(crate) fn new(id: u16) -> Self {
        NodeOptions {
            id,
            cluster: "test".to_owned(),
            extra: json!({}),
        }
    }

    pub(crate) fn with(mut self, extra: Value) -> Self {
        self.extra = extra;
        self
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) id: u16,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    errors: Option<thread::JoinHandle<String>>,
    /// Its addresses, once reported.
    pub(crate) bound: Option<Value>,
}

impl Node {
    /// Starts a node in `directory`/nID.
    pub(crate) fn spawn(directory: &Path, options: &NodeOptions) -> Node {
        let id = options.id;
        let log = directory.join(format!("n{id}.log"));
        let mut config = json!({
            "cluster": options.cluster,
            "node_id": id,
            "data_dir": directory.join(format!("n{id}")),
            "parent_pipe": true,
            "log": {"file": log, "level": "debug"},
        });
        for (name, value) in options.extra.as_object().expect("an object") {
            config[name] = value.clone();
        }
        let path = directory.join(format!("n{id}-{}.json", std::process::id()));
        std::fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_quorate-node"))
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _test_over = sender.send(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _not_utf8 = stderr.read_to_string(&mut text);
            text
        });
        Node {
            id,
            child,
            stdin,
            lines,
            errors: Some(errors),
            bound: None,
        }
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> Value {
        self.lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("n{}: no line: {error}", self.id))
    }

    /// Waits until its ports are bound; returns its entry in the list of members.
    pub(crate) fn member(&mut self) -> Value {
        let line = self.line();
        assert_eq!(line["ready"], false, "{line}");
        self.bound = Some(line["bound"].clone());
        let bound = &line["bound"];
        json!({"id": self.id, "peer": bound["peer"], "client": bound["client"], "http": bound["http"]})
    }

    /// Sends the members and waits until it is ready.
    pub(crate) fn join(&mut self, members: &[Value]) {
        self.send_members(members);
        self.await_ready();
    }

    pub(crate) fn send_members(&mut self, members: &[Value]) {
        self.send_line(&json!(members));
    }

    /// Sends a line to its standard input.
    pub(crate) fn send_line(&mut self, line: &Value) {
        // A node that cannot start may have exited; its error is read next.
        let _gone = writeln!(self.stdin.as_mut().unwrap(), "{line}");
    }

    pub(crate) fn await_ready(&mut self) {
        let line = self.line();
        assert_eq!(line["ready"], true, "{line}");
        assert_eq!(line["node"], self.id, "{line}");
    }

    /// One of its addresses: `peer`, `client` or `http`.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.bound.as_ref().expect("bound")[listener]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// The full response to a GET of `path` at its HTTP listener.
    pub(crate) fn http(&self, path: &str) -> String {
        let mut http = TcpStream::connect(self.address("http")).unwrap();
        http.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            http,
            "GET {path} HTTP/1.1\r\nhost: n{}\r\nconnection: close\r\n\r\n",
            self.id
        )
        .unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address("client"))
    }

    /// Sends a signal by name, as `kill` does.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.unwrap().success(), "kill -{name}");
    }

    /// Kills it and waits until it has exited.
    pub(crate) fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Closes its standard input, like a parent that dies.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it exits.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until(&format!("the exit of n{}", self.id), || {
            self.child.try_wait().unwrap()
        })
    }

    /// Waits until it exits; returns its exit status and its stderr.
    pub(crate) fn wait_with_errors(&mut self) -> (Option<i32>, String) {
        let status = self.wait();
        (status.code(), self.errors.take().expect("once").join().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster of node processes.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    pub(crate) nodes: Vec<Node>,
    pub(crate) members: Vec<Value>,
    extra: Value,
}

impl Cluster {
    /// Starts `n` nodes and waits until all are connected.
    pub(crate) fn start(n: u16) -> Cluster {
        Cluster::start_with(n, json!({}))
    }

    /// As [`start`](Self::start), with extra settings.
    pub(crate) fn start_with(n: u16, extra: Value) -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let options = |id| NodeOptions::new(id).with(extra.clone());
        let mut nodes: Vec<Node> = (1..=n)
            .map(|id| Node::spawn(directory.path(), &options(id)))
            .collect();
        let members: Vec<Value> = nodes.iter_mut().map(Node::member).collect();
        for node in &mut nodes {
            node.send_members(&members);
        }
        for node in &mut nodes {
            node.await_ready();
        }
        let cluster = Cluster {
            directory,
            nodes,
            members,
            extra,
        };
        cluster.await_links();
        cluster
    }

    /// Waits until all links are up.
    pub(crate) fn await_links(&self) {
        for node in &self.nodes {
            let mut client = node.client();
            until("all links up", || {
                client.status().peers.iter().all(|peer| peer.up).then_some(())
            });
        }
    }

    /// Restarts a node on the same data and ports, and waits until it is ready.
    pub(crate) fn restart(&mut self, index: usize) {
        let mut node = self.spawn_again(index);
        node.join(&self.members);
        self.nodes[index] = node;
    }

    /// Restarts a node on the same data and ports, up to the point where it needs the members.
    pub(crate) fn spawn_again(&mut self, index: usize) -> Node {
        let id = self.nodes[index].id;
        let member = &self.members[index];
        let mut extra = self.extra.clone();
        extra["listen"] = json!({"peer": member["peer"], "client": member["client"], "http": member["http"]});
        self.nodes[index].kill();
        let options = NodeOptions::new(id).with(extra);
        let mut node = Node::spawn(self.directory.path(), &options);
        node.member();
        node
    }
}
