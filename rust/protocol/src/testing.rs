//! What this crate's tests bring along for the clusters of `quorate-testing`.

pub(crate) mod roles;
mod servers;
mod store;

pub(crate) use servers::Seen;
pub(crate) use store::Memory;

/// The folder of a module's transcripts.
pub(crate) fn transcripts(module: &str) -> std::path::PathBuf {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("transcripts").join(module)
}

/// A value after its way through the encoding of the wire.
pub(crate) fn encoded<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = postcard::to_stdvec(value).expect("messages can be encoded");
    postcard::from_bytes(&bytes).expect("and decoded")
}
