//! As much of HTTP/2 as an attacker needs: frames (RFC 9113 section 4.1) and header fields (RFC 7541) without Huffman
//! coding.

/// What every HTTP/2 client says first, with empty SETTINGS.
pub fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is not put into the table.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    string(&mut bytes, name);
    string(&mut bytes, value);
    bytes
}

/// A field that is put into the table, where it then is number 62.
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x40];
    string(&mut bytes, name);
    string(&mut bytes, value);
    bytes
}

/// The newest field of the table: one byte that stands for as many as the field has.
pub const NEWEST: u8 = 0x80 | 62;

/// The fields of a request.
pub fn request(host: &str, path: &str, token: &str) -> Vec<u8> {
    [
        literal(":method", "GET"),
        literal(":scheme", "https"),
        literal(":authority", host),
        literal(":path", path),
        literal("authorization", &format!("Bearer {token}")),
    ]
    .concat()
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    // An integer with a 7-bit prefix (RFC 7541 section 5.1).
    let mut length = text.len();
    if length < 0x7f {
        bytes.push(length as u8);
    } else {
        bytes.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            bytes.push((length % 0x80) as u8 | 0x80);
            length /= 0x80;
        }
        bytes.push(length as u8);
    }
    bytes.extend(text.as_bytes());
}
