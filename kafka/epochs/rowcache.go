package epochs

// A rowCache has the rows of one partition that were used last, as they are in the local store. It costs a reading of
// the store, which is most of the work of a callback, for each row that it has. A row is in memory once: buffered in an
// epoch, then here.
type rowCache struct {
	rows          map[string]*cachedRow
	newest, least *cachedRow // by use
	bytes         int64
	share         func() int64 // the most bytes; nil: 0
}

type cachedRow struct {
	key           string
	value         []byte // nil: there is no row
	after, before *cachedRow
}

// cachedRowCost is what a row costs besides its key and value.
const cachedRowCost = 160

func (r *cachedRow) size() int64 { return int64(len(r.key) + cap(r.value) + cachedRowCost) }

func (c *rowCache) get(key string) (value []byte, found bool) {
	r := c.rows[key]
	if r == nil {
		return nil, false
	}
	if c.newest != r {
		c.unlink(r)
		c.link(r)
	}
	return r.value, true
}

// put adds a row, or replaces it, and drops those that were used least recently while there are too many bytes.
func (c *rowCache) put(key string, value []byte) {
	if c.share == nil {
		return
	}
	r := c.rows[key]
	if r == nil {
		if c.rows == nil {
			c.rows = map[string]*cachedRow{}
		}
		r = &cachedRow{key: key}
		c.rows[key] = r
	} else {
		c.bytes -= r.size()
		c.unlink(r)
	}
	r.value = value
	c.bytes += r.size()
	c.link(r)
	for most := c.share(); c.bytes > most && c.least != nil; {
		c.remove(c.least)
	}
}

func (c *rowCache) remove(r *cachedRow) {
	c.bytes -= r.size()
	c.unlink(r)
	delete(c.rows, r.key)
}

func (c *rowCache) link(r *cachedRow) {
	r.before, r.after = c.newest, nil
	if c.newest != nil {
		c.newest.after = r
	}
	if c.newest = r; c.least == nil {
		c.least = r
	}
}

func (c *rowCache) unlink(r *cachedRow) {
	if r.after != nil {
		r.after.before = r.before
	} else {
		c.newest = r.before
	}
	if r.before != nil {
		r.before.after = r.after
	} else {
		c.least = r.after
	}
}
