package epochs

import (
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// An ownLog is what the owner of a partition knows of a compacted topic's partition that only owners write: of the
// table, or of its mirror. It tracks the end by acknowledgements. When offsets are missing among these, or the end is
// beyond the last of them, the records there are foreign: of a zombie or another writer. The partition's mu guards it.
type ownLog struct {
	next          int64            // the offset after the newest known record; -1: not known
	foreign       []committed.Span // offsets below next that are not ours and are not checked yet, ascending
	checking      []committed.Span // those that a scan is checking
	markerPending bool             // the newest record is of our committed transaction, whose marker follows it

	sent, acked, settled int              // our records; settled are those that no marker of ours will follow
	ownOffsets           map[string]int64 // during a scan: the offsets of our records since it began, by key
}

// An owner checks once a second, and a zombie has at most maxUnacked outputs that are not acknowledged. So records that
// a dead owner did not check are among the last few thousand. Records of other writers, appended while no owner runs,
// are checked as far back as that, where the end is not known from a recovery.
const maxScanBack = 4 * maxUnacked

// noteSent notes that one of our records is sent, or will be.
func (l *ownLog) noteSent(key []byte) {
	l.sent++
	if l.ownOffsets != nil {
		l.ownOffsets[string(key)] = math.MaxInt64 // it will be appended behind the known end
	}
}

// noteAcked notes the offset of one of our records. Acknowledgements come in offset order. It returns the first of the
// foreign offsets that are found by it; math.MaxInt64 when there are none.
func (l *ownLog) noteAcked(key []byte, offset int64) (foreignFrom int64) {
	l.acked++
	if l.ownOffsets != nil {
		l.ownOffsets[string(key)] = offset
	}
	if l.markerPending && offset == l.next+1 {
		l.next++ // the marker: it is written before the next transaction's records
	}
	l.markerPending = false
	foreignFrom = l.addForeign(offset)
	l.next = max(l.next, offset+1)
	return foreignFrom
}

// settle notes that nothing of ours follows the acknowledged records by itself.
func (l *ownLog) settle() { l.settled = l.acked }

// transactionCommitted notes the commit of a transaction with records in the partition.
func (l *ownLog) transactionCommitted() {
	l.markerPending = true
	l.settle()
}

// idle reports that nothing of ours is in flight.
func (l *ownLog) idle() bool { return l.sent == l.settled }

// observed notes the end of the partition as a broker returned it. While something of ours is in flight that says
// nothing: the next acknowledgement shows missing offsets.
func (l *ownLog) observed(end int64) {
	if !l.idle() || l.markerPending && end <= l.next+1 {
		return // at most the marker was appended, or a foreign record, which is noticed once the marker is appended too
	}
	l.markerPending = false
	l.addForeign(end)
	l.next = max(l.next, end)
}

// addForeign notes that the unknown offsets below one are not ours, and returns the first of them.
func (l *ownLog) addForeign(below int64) (from int64) {
	from = l.next
	if from < 0 {
		from = max(0, below-maxScanBack)
	}
	if from >= below {
		return math.MaxInt64
	}
	l.foreign = append(l.foreign, committed.Span{From: from, To: below})
	return from
}

// foreignFrom returns the first foreign offset that is not checked, or whose scan is not done; math.MaxInt64 when there
// is none.
func (l *ownLog) foreignFrom() int64 {
	first := int64(math.MaxInt64)
	for _, spans := range [][]committed.Span{l.checking, l.foreign} {
		for _, span := range spans {
			first = min(first, span.From)
		}
	}
	return first
}

// startScan begins to note our records that are sent meanwhile: they are appended behind the scanned offsets.
func (l *ownLog) startScan() { l.ownOffsets = map[string]int64{} }

// takeForeign returns the offsets to check, and the known end. The scan ends with endScan.
func (l *ownLog) takeForeign() (foreign []committed.Span, next int64) {
	l.checking, l.foreign = l.foreign, nil
	return l.checking, l.next
}

// endScan ends a scan. What it has not checked is checked again.
func (l *ownLog) endScan(checked bool) {
	if !checked {
		l.foreign = append(l.checking, l.foreign...)
	}
	l.checking, l.ownOffsets = nil, nil
}

// followed reports whether a record of ours follows one at an offset, or will.
func (l *ownLog) followed(key string, offset int64) bool {
	ours, sent := l.ownOffsets[key]
	return sent && ours > offset
}

// isMirrorRecord reports whether an output is a record of the mirror.
func (p *partitionEpochs) isMirrorRecord(r *kgo.Record) bool {
	return p.conf.Mirror != nil && r.Topic == p.conf.Mirror.Topic
}
