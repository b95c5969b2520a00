package ingress

import (
	"net/http"
	"time"
)

// Window is how far the time of a signed request may lie from the receiver's, in either direction.
const Window = window

// A SignatureError is why a signature is refused: the code and the detail that a sender is answered.
type SignatureError struct{ Code, Detail string }

// Error says both.
func (e *SignatureError) Error() string { return e.Code + ": " + e.Detail }

// Verify checks a request's signature as the webhook endpoint does, at the time now; a refusal is a *SignatureError.
func Verify(scheme Scheme, secrets []Secret, h http.Header, body []byte, now time.Time) error {
	if _, problem := verify(scheme, secrets, h, body, now); problem != nil {
		return &SignatureError{problem.Code, problem.Detail}
	}
	return nil
}

// Timed says whether the scheme signs the time, so that an old request is refused.
func (s Scheme) Timed() bool { return s.Name() != Fastio }
