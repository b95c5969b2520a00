package devbroker

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxFrame is the largest request that is accepted, as on a Kafka broker (socket.request.max.bytes).
const maxFrame = 100 << 20

// A guard is a listener that closes a connection at the first request that would crash kfake, which allocates whatever
// size a frame claims, up to 4 GiB, and ends the process at an unknown API key. It also corrects the answer to
// CreateTopics: kfake gives settings the config source -1, which Kafka does not have and kafka-python fails on.
type guard struct{ net.Listener }

// Accept returns the next connection with the guard.
func (g guard) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guarded{Conn: c}, nil
}

// Sizes of the parts of a frame. It begins with its length, which does not include itself. API key, API version and
// correlation id follow in a request, the correlation id alone in an answer.
const (
	lengthBytes = 4
	keyBytes    = 2
	leastFrame  = 8
)

// createConfigs is the first version of CreateTopics whose answer has the topic's settings. It has tags after the
// correlation id.
const createConfigs = 5

type guarded struct {
	net.Conn
	head []byte // checked, and not yet returned by Read
	rest uint32 // bytes of the current frame still to be read

	mu      sync.Mutex
	creates map[uint32]int16 // versions of unanswered CreateTopics requests by correlation id
}

// Read returns at most the rest of one frame, so that the head of the next is checked before kfake reads it.
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
	head := make([]byte, lengthBytes+leastFrame)
	if _, err := io.ReadFull(c.Conn, head[:lengthBytes+keyBytes]); err != nil {
		return err
	}
	size, key := binary.BigEndian.Uint32(head), int16(binary.BigEndian.Uint16(head[lengthBytes:]))
	if size < leastFrame || size > maxFrame || kmsg.RequestForKey(key) == nil {
		return fmt.Errorf("refused a request of %d bytes with API key %d", size, key)
	}
	if _, err := io.ReadFull(c.Conn, head[lengthBytes+keyBytes:]); err != nil {
		return err
	}
	version, id := int16(binary.BigEndian.Uint16(head[lengthBytes+keyBytes:])), binary.BigEndian.Uint32(
		head[2*lengthBytes:])
	if key == kmsg.CreateTopics.Int16() && version >= createConfigs {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.creates == nil {
			c.creates = map[uint32]int16{}
		}
		c.creates[id] = version
	}
	c.head, c.rest = head, size-leastFrame
	return nil
}

// Write sends an answer, which kfake writes with one call.
func (c *guarded) Write(p []byte) (int, error) {
	answer := p
	if len(p) >= 2*lengthBytes {
		id := binary.BigEndian.Uint32(p[lengthBytes:])
		c.mu.Lock()
		version, creates := c.creates[id]
		delete(c.creates, id)
		c.mu.Unlock()
		if creates {
			answer = withConfigSource(p, version)
		}
	}
	if n, err := c.Conn.Write(answer); err != nil {
		return min(n, len(p)), err
	}
	return len(p), nil
}

// withConfigSource returns an answer to CreateTopics in which each setting has the source "dynamic topic config".
func withConfigSource(answer []byte, version int16) []byte {
	const head = 2*lengthBytes + 1 // with no tags
	response := kmsg.NewPtrCreateTopicsResponse()
	response.SetVersion(version)
	if len(answer) < head || response.ReadFrom(answer[head:]) != nil {
		return answer
	}
	for _, topic := range response.Topics {
		for i := range topic.Configs {
			topic.Configs[i].Source = int8(kmsg.ConfigSourceDynamicTopicConfig)
		}
	}
	correct := response.AppendTo(slices.Clone(answer[:head]))
	binary.BigEndian.PutUint32(correct, uint32(len(correct)-lengthBytes))
	return correct
}
