//! The switches that break the rules are in no program but `tollgate-verify`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::process::Command;

/// The features of `tollgate-proto` in a build of `package` alone, by `cargo tree`.
fn proto_features(package: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let tree = Command::new(env!("CARGO"))
        .current_dir(root)
        .args([
            "tree",
            "--offline",
            "--edges",
            "features,normal",
            "--invert",
            "tollgate-proto",
            "--package",
            package,
        ])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{package}: {}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap()
}

#[test]
fn only_the_verifier_contains_the_switches_that_break_the_rules() {
    const SWITCHES: &str = "tollgate-proto feature \"mutations\"";
    assert!(
        proto_features("tollgate-verify").contains(SWITCHES),
        "the verifier has them, or this test finds nothing"
    );
    let metadata = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let depends_on_proto = |package: &&serde_json::Value| {
        let name = package["name"].as_str().unwrap();
        name != "tollgate-verify"
            && package["dependencies"].as_array().unwrap().iter().any(|dependency| {
                dependency["name"].as_str().unwrap().starts_with("tollgate")
                    && dependency["kind"].is_null()
                    && dependency["optional"] == false
            })
    };
    let mut checked = 0;
    for package in packages.iter().filter(depends_on_proto) {
        let name = package["name"].as_str().unwrap();
        assert!(
            !proto_features(name).contains(SWITCHES),
            "{name} turns on the switches that break the rules"
        );
        checked += 1;
    }
    assert!(checked >= 8, "only {checked} packages were looked at");
}
