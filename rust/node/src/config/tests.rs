use super::*;

fn config(extra: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::parse(&format!(
        r#"{{"cluster": "test", "node_id": 1, "data_dir": "/data/n1", "parent_pipe": true{extra}}}"#
    ))
}

fn rejected(extra: &str) -> String {
    config(extra).expect_err("rejected").0
}

#[test]
fn all_but_the_required_settings_have_defaults() {
    let config = config("").unwrap();
    assert_eq!(config.node, NodeId(1));
    assert_eq!(config.cluster, ClusterId::from_name("test"));
    assert_eq!(config.ring, RingSettings::default());
    assert_eq!(config.listen.peer, "127.0.0.1:0".parse().unwrap());
    assert_eq!(
        (config.heartbeat, config.idle),
        (Duration::from_millis(100), Duration::from_secs(1))
    );
    assert_eq!(config.raft_timing, Timing::DEFAULT);
    assert!(!config.allow_faults);
    assert!(!config.forming);
    assert_eq!(config.lock_timeout, Duration::ZERO);
    assert_eq!(config.members, None);
}

#[test]
fn toml_and_json_are_equivalent() {
    let toml = NodeConfig::parse(
        "cluster = 'test'\nnode_id = 'n1'\ndata_dir = '/data/n1'\nparent_pipe = true\nvnodes = 7\nallow_faults = true\n[listen]\npeer = '127.0.0.1:7000'",
    );
    let json = config(r#", "vnodes": 7, "allow_faults": true, "listen": {"peer": "127.0.0.1:7000"}"#);
    assert_eq!(toml.unwrap(), json.unwrap());
}

#[test]
fn errors_name_the_setting_and_the_remedy() {
    for (extra, wanted) in [
        (r#", "vnode": 3"#, &["vnode", "vnodes"][..]),
        (
            r#", "heartbeat_ms": 600"#,
            &["idle_ms=1000", "heartbeat_ms=600", "at least twice"],
        ),
        (r#", "heartbeat_ms": 0"#, &["heartbeat_ms=0", "1 or more"]),
        (
            r#", "raft_timing": "hasty""#,
            &["raft_timing=\"hasty\"", "default, conservative or aggressive"],
        ),
        (r#", "hash": "sha1""#, &["sha1", "murmur3, md5 or xxh3"]),
        (
            r#", "listen": {"peer": "0.0.0.0:0"}"#,
            &["listen.peer", "insecure=true", "secret"],
        ),
        (
            r#", "listen": {"peer": "127.0.0.1:7000", "http": "127.0.0.1:7000"}"#,
            &["listen.peer and listen.http", "its own port"],
        ),
        (
            r#", "listen": {"peer": "nonsense"}"#,
            &["listen.peer", "host:port"],
        ),
        (r#", "log": {"level": "==="}"#, &["log.level", "info"]),
        (
            r#", "log": {"level": "loud"}"#,
            &["log.level=\"loud\"", "error, warn, info"],
        ),
        (r#", "log": {"level": "info,loud"}"#, &["log.level=\"info,loud\""]),
        (
            r#", "log": {"level": "quorate_node=loud"}"#,
            &["quorate_node=loud"],
        ),
        (r#", "log": {"level": ""}"#, &["log.level=\"\""]),
        (r#", "secret": """#, &["secret is empty"]),
        (r#", "members": []"#, &["at least one node"]),
        (
            r#", "members": [{"id": 2, "peer": "a:1", "client": "a:2"}]"#,
            &["node_id=n1", "n2"],
        ),
        (
            r#", "members": [{"id": 1, "peer": "a:0", "client": "a:2"}]"#,
            &["n1", "peer=\"a:0\""],
        ),
        (
            r#", "members": [{"id": 1, "peer": "a:1", "client": "a:2"}, {"id": 1, "peer": "b:1", "client": "b:2"}]"#,
            &["n1 is listed twice"],
        ),
        (
            r#", "vnodes": 0, "members": [{"id": 1, "peer": "a:1", "client": "a:2"}]"#,
            &["vnodes=0"],
        ),
    ] {
        let text = rejected(extra);
        for word in wanted {
            assert!(text.contains(word), "{extra}: {word:?} is not in {text:?}");
        }
    }
    let text = NodeConfig::parse(r#"{"cluster": "c", "node_id": 0, "data_dir": "d"}"#)
        .unwrap_err()
        .0;
    assert!(text.contains("node_id=0"), "{text}");
    let text = NodeConfig::parse(r#"{"cluster": "c", "node_id": 1, "data_dir": "d"}"#)
        .unwrap_err()
        .0;
    assert!(
        text.contains("members is missing and parent_pipe=false"),
        "{text}"
    );
    let text = NodeConfig::parse(
        r#"{"cluster": "c", "node_id": 1, "data_dir": "d", "forming": true,
            "members": [{"id": 1, "peer": "a:1", "client": "a:2"}]}"#,
    )
    .unwrap_err()
    .0;
    assert!(text.contains("forming=true requires parent_pipe=true"), "{text}");
}

#[test]
fn listening_beyond_loopback_needs_a_secret_or_insecure() {
    assert!(
        config(r#", "listen": {"peer": "0.0.0.0:0"}, "secret": "s3cret"}"#.trim_end_matches('}')).is_ok()
    );
    assert!(config(r#", "listen": {"peer": "0.0.0.0:0"}, "insecure": true"#).is_ok());
    let shown = format!("{:?}", config(r#", "secret": "s3cret""#).unwrap());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn members_are_parsed_from_a_line() {
    let members = NodeConfig::parse_members(
        r#"[{"id":1,"peer":"127.0.0.1:1","client":"127.0.0.1:2","http":"127.0.0.1:3","rack":"r","datacenter":"d"}]"#,
    );
    let members = members.unwrap();
    assert_eq!(members[0].rack, "r");
    assert_eq!(config("").unwrap().topology(members).unwrap().members.len(), 1);
    assert!(NodeConfig::parse_members("[{").is_err());
}
