//! SPDY/3 header blocks: name-value pairs, compressed with zlib, one stream of compression per direction and
//! connection, primed with a dictionary of the protocol.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::Malformed;

/// The most that one block may inflate to.
const MAX_BLOCK_BYTES: usize = 64 * 1024;

/// Room for a compressed block beside the block itself: stored blocks and the flush marker.
const COMPRESSION_OVERHEAD: usize = 256;

/// The headers of a stream; a name with several values holds them separated by NUL.
pub(in super::super) type Headers = Vec<(String, String)>;

/// Reads the blocks that the client sends, in their order.
pub(super) struct BlockReader(Decompress);

impl BlockReader {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn read(&mut self, mut block: &[u8]) -> Result<Headers, Malformed> {
        let mut text = vec![0; MAX_BLOCK_BYTES];
        let mut written = 0;
        while !block.is_empty() {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let result = self
                .0
                .decompress(block, &mut text[written..], FlushDecompress::Sync);
            let consumed = moved(before_in, self.0.total_in());
            written += moved(before_out, self.0.total_out());
            block = &block[consumed..];
            match result {
                Ok(Status::Ok) if consumed > 0 => {}
                Ok(_) => return Err(Malformed),
                // Only the first block of a connection asks for the dictionary.
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| Malformed)?;
                }
                Err(_) => return Err(Malformed),
            }
        }
        parse(&text[..written])
    }
}

/// Writes the blocks that the server sends, in their order.
pub(super) struct BlockWriter(Compress);

impl BlockWriter {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        compress
            .set_dictionary(&dictionary())
            .expect("a new compressor takes a dictionary");
        Self(compress)
    }

    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut text = Vec::new();
        put_number(&mut text, headers.len());
        for (name, value) in headers {
            put_text(&mut text, name);
            put_text(&mut text, value);
        }
        let mut block = Vec::with_capacity(text.len() + COMPRESSION_OVERHEAD);
        self.0
            .compress_vec(&text, &mut block, FlushCompress::Sync)
            .expect("compression of bytes in memory does not fail");
        block
    }
}

fn parse(mut text: &[u8]) -> Result<Headers, Malformed> {
    let count = text.try_get_u32().map_err(|_| Malformed)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        headers.push((take_text(&mut text)?, take_text(&mut text)?));
    }
    Ok(headers)
}

fn take_text(text: &mut &[u8]) -> Result<String, Malformed> {
    let length = text.try_get_u32().map_err(|_| Malformed)? as usize;
    let (taken, rest) = text.split_at_checked(length).ok_or(Malformed)?;
    *text = rest;
    String::from_utf8(taken.to_vec()).map_err(|_| Malformed)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len());
    out.put_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    out.put_u32(u32::try_from(number).expect("headers are short"));
}

fn moved(before: u64, after: u64) -> usize {
    usize::try_from(after - before).expect("no more than the buffer holds")
}

/// The dictionary of SPDY/3: words with their lengths, then plain text (SPDY/3 draft, 2.6.10.1).
fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    let words = DICTIONARY_WORDS
        .split(' ')
        .chain(["status", "200 OK"])
        .chain(LAST_WORDS.split(' '));
    for word in words {
        put_text(&mut dictionary, word);
    }
    dictionary.put_slice(DICTIONARY_TEXT.as_bytes());
    dictionary
}

const DICTIONARY_WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding \
    content-language content-length content-location content-md5 content-range content-type date etag expect expires \
    from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location \
    max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer \
    transfer-encoding upgrade user-agent vary via warning www-authenticate method get";

const LAST_WORDS: &str = "version HTTP/1.1 url public set-cookie keep-alive origin";

const DICTIONARY_TEXT: &str = "10010120120220520630030230330430530630740240540640740840941041141241341441541641750250\
    4505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
    Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun \
    Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,\
    image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionary_is_that_of_the_protocol() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1_423);
        // zlib names a dictionary by its Adler-32 checksum.
        let (low, high) = dictionary.iter().fold((1_u32, 0_u32), |(low, high), byte| {
            let low = (low + u32::from(*byte)) % 65_521;
            (low, (high + low) % 65_521)
        });
        assert_eq!(high << 16 | low, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_connection_are_read_in_their_order() {
        let (mut writer, mut reader) = (BlockWriter::new(), BlockReader::new());
        for stream in ["error", "stdin", "stdout"] {
            let block = writer.write(&[("streamtype", stream), ("port", "8080")]);
            let headers = reader.read(&block).unwrap();
            assert_eq!(headers[0], ("streamtype".to_owned(), stream.to_owned()));
            assert_eq!(headers[1], ("port".to_owned(), "8080".to_owned()));
        }
    }

    #[test]
    fn broken_and_bloated_blocks_are_refused() {
        assert_eq!(BlockReader::new().read(b"no zlib at all"), Err(Malformed));
        let long = "x".repeat(MAX_BLOCK_BYTES);
        let block = BlockWriter::new().write(&[("long", &long)]);
        assert_eq!(BlockReader::new().read(&block), Err(Malformed));
        assert_eq!(parse(b"\x00\x00\x00\x01\xff\xff\xff\xff"), Err(Malformed));
    }
}
