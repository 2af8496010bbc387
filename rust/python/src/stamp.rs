//! A checksum of the stubs, by which Python files of another build reject the extension instead of failing later.

/// The stub file that describes this module, as it was when this was compiled.
const STUB: &[u8] = include_bytes!("../../../python/quorate/_quorate.pyi");

/// CRC-32 of the stub: it differs if the Python files and the extension are of different builds.
pub(crate) const INTERFACE: u32 = crc32(STUB);

/// CRC-32 as `zlib.crc32` computes it, at compile time.
const fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let mut index = 0;
    while index < bytes.len() {
        crc ^= bytes[index] as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        index += 1;
    }
    !crc
}
