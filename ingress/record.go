package ingress

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// recordHeaders returns the headers of an event's record, sorted by name: CloudEvents 1.0 in Kafka's binary mode, and
// traceparent.
//
// ce_source is the URI-reference "fastio/" and the workspace's id, percent-escaped. CloudEvents wants ce_source and
// ce_id to be unique together, and event ids are unique in their workspace only.
func recordHeaders(e *tidemarkv1.Event, request http.Header) []kgo.RecordHeader {
	h := append(make([]kgo.RecordHeader, 0, 8),
		kgo.RecordHeader{Key: topology.HeaderEventID, Value: []byte(e.GetEventId())},
		kgo.RecordHeader{Key: "ce_source", Value: []byte("fastio/" + url.PathEscape(e.GetWorkspaceId()))},
		kgo.RecordHeader{Key: "ce_specversion", Value: []byte("1.0")})
	if e.GetFileId() != "" {
		h = append(h, kgo.RecordHeader{Key: topology.HeaderFileID, Value: []byte(e.GetFileId())})
	}
	if e.OccurredAt != nil {
		at := time.UnixMicro(e.GetOccurredAt()).UTC()
		if year := at.Year(); year >= 0 && year <= 9999 { // RFC 3339 has no other years
			h = append(h, kgo.RecordHeader{Key: "ce_time", Value: at.AppendFormat(nil, time.RFC3339Nano)})
		}
	}
	return append(h,
		kgo.RecordHeader{Key: topology.HeaderEventType, Value: []byte(e.GetEvent())},
		kgo.RecordHeader{Key: "content-type", Value: []byte("application/json")},
		kgo.RecordHeader{Key: "traceparent", Value: traceparent(request)})
}

// traceparent returns the request's own if it is valid (W3C Trace Context), else a new one that is not sampled, since
// no span was recorded here.
func traceparent(h http.Header) []byte {
	if t := only(h, "Traceparent"); validTraceparent(t) {
		return []byte("00" + t[2:55])
	}
	var ids [24]byte
	for i := 0; i < len(ids); i += 8 {
		binary.BigEndian.PutUint64(ids[i:], rand.Uint64())
	}
	ids[0] |= 1 // neither id may be all zeros
	ids[16] |= 1
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, ids[:16])
	b = append(b, '-')
	b = hex.AppendEncode(b, ids[16:])
	return append(b, "-00"...)
}

// validTraceparent also accepts later versions, whose first four fields are those of version 00.
func validTraceparent(t string) bool {
	if len(t) < 55 || len(t) > 55 && (t[:2] == "00" || t[55] != '-') {
		return false
	}
	for i := range 55 {
		dash := i == 2 || i == 35 || i == 52
		if dash != (t[i] == '-') || !dash && !strings.ContainsRune("0123456789abcdef", rune(t[i])) {
			return false
		}
	}
	const zeros = "00000000000000000000000000000000"
	return t[:2] != "ff" && t[3:35] != zeros && t[36:52] != zeros[:16]
}
