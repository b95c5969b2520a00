package views

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"tidemark/problem"
)

// How long a body may take. The server's own ReadTimeout is shorter than a large one takes from a slow client.
const (
	uploadPause = 15 * time.Second // until the next bytes
	uploadTime  = 5 * time.Minute
)

// An upload is a body that may be slow, as long as it arrives.
type upload struct {
	body    io.Reader
	control *http.ResponseController
	pause   time.Duration
	end     time.Time
}

func (u *upload) Read(b []byte) (int, error) {
	deadline := time.Now().Add(u.pause)
	if deadline.After(u.end) {
		deadline = u.end
	}
	_ = u.control.SetReadDeadline(deadline) // not supported by the writers of tests
	n, err := u.body.Read(b)
	if errors.Is(err, io.EOF) { // or net/http would take the deadline for a client that has left
		_ = u.control.SetReadDeadline(time.Time{}) // as above
	}
	return n, err
}

// upload returns the body of a request, of at most limit bytes.
func (s *Server) upload(c *call, limit int64) io.Reader {
	return &upload{
		body: http.MaxBytesReader(nil, c.request.Body, limit), control: c.control, pause: s.uploadPause,
		end: time.Now().Add(uploadTime),
	}
}

// uploaded extends the time for the answer, which began before the body arrived. It returns a problem if the body did
// not arrive in time.
func uploaded(c *call, err error) error {
	_ = c.control.SetWriteDeadline(time.Now().Add(writeTimeout + c.barrier.wait)) // see setWriteDeadline
	if err == nil {
		_ = c.control.SetReadDeadline(time.Time{}) // the end of the body was not read
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return problem.New(http.StatusRequestTimeout, codeSlowUpload, "the body did not arrive in time: send some of it "+
		"every 15 seconds, and all of it within 5 minutes").With("Connection", "close")
}
