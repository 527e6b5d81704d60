//! W3C trace context: the `traceparent` header. What is malformed is ignored, as the recommendation asks.

use eventlog::TraceContext;

/// Reads `00-<32 hex>-<16 hex>-<2 hex>`; later versions may carry more behind it. None if it is malformed.
pub(crate) fn parse(header: &str) -> Option<TraceContext> {
    let mut parts = header.split('-');
    let [version] = bytes::<1>(parts.next()?)?;
    let trace_id = bytes::<16>(parts.next()?)?;
    let span_id = bytes::<8>(parts.next()?)?;
    let [flags] = bytes::<1>(parts.next()?)?;
    let is_well_formed = version != 0xff && (version != 0 || parts.next().is_none());
    let has_ids = trace_id != [0; 16] && span_id != [0; 8];
    (is_well_formed && has_ids).then_some(TraceContext { trace_id, span_id, flags })
}

/// The header again, as [`parse`] reads it.
pub(crate) fn text(trace: &TraceContext) -> String {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("00-{}-{}-{:02x}", hex(&trace.trace_id), hex(&trace.span_id), trace.flags)
}

/// Lower-case hex of exactly `N` bytes.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    let is_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if digits.len() != 2 * N || !digits.iter().all(is_hex) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_parent_reads_into_its_parts() {
        let trace = parse(GOOD).unwrap();
        assert_eq!((trace.trace_id[0], trace.trace_id[15]), (0x0a, 0x9c));
        assert_eq!((trace.span_id[0], trace.span_id[7], trace.flags), (0xb7, 0x31, 1));
        assert_eq!(text(&trace), GOOD);
        assert_eq!(parse(&format!("cc{}-later", &GOOD[2..])), Some(trace), "a later version may say more");
    }

    #[test]
    fn what_is_malformed_is_no_trace() {
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let forbidden = format!("ff{}", &GOOD[2..]);
        let (more, upper, short) = (format!("{GOOD}-x"), GOOD.to_uppercase(), &GOOD[..54]);
        for bad in ["", "-", "00", zero_trace, zero_span, &forbidden, &more, &upper, short, "00-é-é-é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
