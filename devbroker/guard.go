package devbroker

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxFrame is the largest request let through, as on a Kafka broker (socket.request.max.bytes).
const maxFrame = 100 << 20

// A guard is a listener whose connections end at the first request that kfake would not survive: it allocates whatever size a
// frame claims, up to 4 GiB, and an API key that it does not know ends the process.
type guard struct{ net.Listener }

// Accept returns the next connection, guarded.
func (g guard) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guarded{Conn: c}, nil
}

// Sizes of a frame's parts. A frame begins with its length, which does not count itself; API key, API version and correlation
// id follow in every request.
const (
	lengthBytes = 4
	keyBytes    = 2
	leastFrame  = 8
)

type guarded struct {
	net.Conn
	head []byte // checked, not yet handed on
	rest uint32 // bytes of the current frame still to come
}

// Read hands on at most the rest of one frame, so that the head of the next is seen here before kfake sees it.
func (c *guarded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.head) == 0 && c.rest == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), int(c.rest))])
	c.rest -= uint32(n)
	return n, err
}

func (c *guarded) next() error {
	head := make([]byte, lengthBytes+keyBytes)
	if _, err := io.ReadFull(c.Conn, head); err != nil {
		return err
	}
	size, key := binary.BigEndian.Uint32(head), int16(binary.BigEndian.Uint16(head[lengthBytes:]))
	if size < leastFrame || size > maxFrame || kmsg.RequestForKey(key) == nil {
		return fmt.Errorf("refused a request of %d bytes with API key %d", size, key)
	}
	c.head, c.rest = head, size-keyBytes
	return nil
}
