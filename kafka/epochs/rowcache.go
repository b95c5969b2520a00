package epochs

// A row is the newest row of a key: buffered in an epoch until that is published, and then cached. Callbacks must see
// either.
type row struct {
	key          string
	value        []byte          // nil: there is no row, or it is deleted
	message      any             // of a buffered row, what SetValue was called with; nil: not known
	epoch        *epoch          // that it is buffered in; nil: it is cached
	indexChanges map[string]bool // of a buffered row, by index entry: whether the entry exists from it on
	replaced     bool            // a later epoch has a newer one

	after, before *row // of a cached row, by use
}

// rowCost is what a cached row costs besides its key and value.
const rowCost = 200

func (r *row) size() int64 { return int64(len(r.key) + cap(r.value) + rowCost) }

// memoryRows are the rows of one partition that are in memory: all that are buffered, and those of the cached ones that
// were used last. A cached row costs a reading of the store less, which is most of the work of a callback.
type memoryRows struct {
	byKey         map[string]*row
	newest, least *row         // cached, by use
	cachedBytes   int64        // of these
	share         func() int64 // the most of them; nil: 0
}

// get returns the row of a key; nil when it is not in memory.
func (m *memoryRows) get(key string) *row {
	r := m.byKey[key]
	if r != nil && r.epoch == nil && m.newest != r {
		m.unlink(r)
		m.link(r)
	}
	return r
}

// buffer returns the row of a key in an open epoch, and whether the epoch had it already. If an epoch that is being
// published has one, the new row begins with its index changes.
func (m *memoryRows) buffer(key string, open *epoch) (r *row, had bool) {
	switch r = m.byKey[key]; {
	case r == nil:
		r = &row{key: key}
		m.byKey[key] = r
	case r.epoch == open:
		return r, true
	case r.epoch == nil:
		m.unlink(r)
	default:
		r.replaced = true
		r = &row{key: key, indexChanges: r.indexChanges}
		m.byKey[key] = r
	}
	r.epoch = open
	return r, false
}

// published makes a buffered row a cached one, unless a later epoch has a newer one, which it returns.
func (m *memoryRows) published(r *row) (newer *row) {
	if r.replaced {
		return m.byKey[r.key]
	}
	r.epoch, r.message, r.indexChanges = nil, nil, nil
	m.add(r)
	return nil
}

// cache adds a row that was read from the store.
func (m *memoryRows) cache(key string, value []byte) {
	if m.byKey[key] == nil {
		r := &row{key: key, value: value}
		m.byKey[key] = r
		m.add(r)
	}
}

// add links a row as the one that was used last, and drops those that were used least recently while there are too many
// bytes.
func (m *memoryRows) add(r *row) {
	m.link(r)
	most := int64(0)
	if m.share != nil {
		most = m.share()
	}
	for m.cachedBytes > most && m.least != nil {
		delete(m.byKey, m.least.key)
		m.unlink(m.least)
	}
}

func (m *memoryRows) link(r *row) {
	m.cachedBytes += r.size()
	r.before, r.after = m.newest, nil
	if m.newest != nil {
		m.newest.after = r
	}
	if m.newest = r; m.least == nil {
		m.least = r
	}
}

func (m *memoryRows) unlink(r *row) {
	m.cachedBytes -= r.size()
	if r.after != nil {
		r.after.before = r.before
	} else {
		m.newest = r.before
	}
	if r.before != nil {
		r.before.after = r.after
	} else {
		m.least = r.after
	}
	r.after, r.before = nil, nil
}
