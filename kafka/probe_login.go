package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// checkNoLogin checks that the broker answers requests without a login.
func (p *probe) checkNoLogin(ctx context.Context) error {
	question := kmsg.NewPtrMetadataRequest()
	question.Version, question.Topics = 4, []kmsg.MetadataRequestTopic{} // none, not nil: nil asks for all
	_, err := p.ask(question)
	if err == nil {
		return nil
	}
	hungUp := p.fault(StepLogin, err, "look at the broker's log: it says why it hung up",
		"the broker hangs up on a client without a login (%v)", rootCause(err))
	p.close()
	if _, err := p.open(ctx); err != nil {
		return hungUp
	}
	hello := kmsg.NewPtrSASLHandshakeRequest()
	hello.Version, hello.Mechanism = 1, "none-is-set" // the refusal lists the enabled mechanisms
	response, err := p.ask(hello)
	answer, ok := response.(*kmsg.SASLHandshakeResponse)
	if err != nil || !ok {
		return hungUp
	}
	return p.fault(StepLogin, nil, "set --kafka-sasl-mechanism, --kafka-sasl-user and the password",
		"the broker requires SASL authentication, and none is configured; it offers %s", offeredMechanisms(answer))
}

// offeredMechanisms lists the mechanisms that a broker has enabled.
func offeredMechanisms(answer *kmsg.SASLHandshakeResponse) string {
	if len(answer.SupportedMechanisms) == 0 {
		return "no mechanism at all"
	}
	return strings.Join(answer.SupportedMechanisms, ", ")
}

// login logs in as configured, and returns the user and mechanism.
func (p *probe) login(ctx context.Context) (string, error) {
	own := p.config.SASL
	hello := kmsg.NewPtrSASLHandshakeRequest()
	hello.Version, hello.Mechanism = 1, own.Mechanism
	response, err := p.ask(hello)
	if err != nil {
		return "", p.fault(StepLogin, err, "look at the broker's log: it says why it hung up",
			"the broker hangs up before the login (%v)", rootCause(err))
	}
	answer, ok := response.(*kmsg.SASLHandshakeResponse)
	if !ok {
		return "", fmt.Errorf("unexpected answer %T to a login", response)
	}
	switch refusal := kerr.ErrorForCode(answer.ErrorCode); {
	case errors.Is(refusal, kerr.UnsupportedSaslMechanism):
		return "", p.fault(StepLogin, nil, "set --kafka-sasl-mechanism to one that is offered, or add this one to "+
			"the broker's sasl.enabled.mechanisms",
			"mechanism %s is not enabled; the broker offers %s", own.Mechanism, offeredMechanisms(answer))
	case errors.Is(refusal, kerr.IllegalSaslState):
		return "", p.fault(StepLogin, nil, "leave the SASL settings out, or take the port of the listener with logins",
			"this port asks for no login")
	case refusal != nil:
		return "", p.fault(StepLogin, refusal, "look at the broker's log", "the broker refuses to begin a login: %v",
			refusal)
	}
	if err := p.authenticate(ctx); err != nil {
		return "", err
	}
	return own.User + " with " + own.Mechanism, nil
}

// authenticate exchanges the messages of the login. Brokers answer wrong passwords and unknown users alike, on purpose.
// But the first SCRAM message names the user and only the second one proves the password, so the step that fails tells
// them apart.
func (p *probe) authenticate(ctx context.Context) error {
	own := p.config.SASL
	session, message, err := own.franz().Authenticate(ctx, p.address)
	if err != nil {
		return p.fault(StepLogin, err, "correct the user and the password", "the login cannot be begun: %v", err)
	}
	for step, done := 1, false; !done || len(message) > 0; step++ {
		request := kmsg.NewPtrSASLAuthenticateRequest()
		request.Version, request.SASLAuthBytes = 1, message
		response, err := p.ask(request)
		said := ""
		if err == nil {
			answer, ok := response.(*kmsg.SASLAuthenticateResponse)
			if !ok {
				return fmt.Errorf("unexpected answer %T to a login", response)
			}
			if err = kerr.ErrorForCode(answer.ErrorCode); err == nil {
				if done {
					return nil
				}
				if done, message, err = session.Challenge(answer.SASLAuthBytes); err == nil {
					continue
				}
				return p.fault(StepLogin, err, "look whether the address is that of your cluster",
					"the broker does not prove that it knows the password: %v", err)
			}
			if answer.ErrorMessage != nil {
				said = " (it says: " + *answer.ErrorMessage + ")"
			}
		}
		return p.refusedLogin(err, step, said)
	}
	return nil
}

func (p *probe) refusedLogin(err error, step int, said string) error {
	own := p.config.SASL
	if !errors.Is(err, kerr.SaslAuthenticationFailed) && !errors.Is(err, io.EOF) {
		return p.fault(StepLogin, err, "look at the broker's log", "the login broke off: %v%s", err, said)
	}
	scram := slices.Contains([]string{ScramSHA256, ScramSHA512}, own.Mechanism)
	switch {
	case scram && step == 1:
		return p.fault(StepLogin, err,
			fmt.Sprintf("correct --kafka-sasl-user, or make its %s credentials with kafka-configs --alter "+
				"--entity-type users", own.Mechanism),
			"unknown user: the broker has no %s credentials of user %q%s", own.Mechanism, own.User, said)
	case scram:
		return p.fault(StepLogin, err,
			"correct the password: --kafka-sasl-password-file or TIDEMARK_KAFKA_SASL_PASSWORD",
			"wrong password: the broker knows user %q, but not with this one%s", own.User, said)
	}
	return p.fault(StepLogin, err, "correct the user or the password; over PLAIN a broker does not say which is wrong",
		"wrong password or unknown user %q%s", own.User, said)
}

var (
	errNotKafka  = errors.New("the answer is not Kafka's")
	errTLSAnswer = errors.New("the answer is a TLS alert")
)

// maxAnswer limits an answer: those of the requests here are short.
const maxAnswer = 1 << 20

// ask sends a request, in a version whose header has no tags, and reads its response.
func (p *probe) ask(request kmsg.Request) (kmsg.Response, error) {
	p.correlation++
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID(p.config.clientID()))
	if _, err := p.conn.Write(format.AppendRequest(nil, request, p.correlation)); err != nil {
		return nil, err
	}
	var head [8]byte // length and correlation id
	if _, err := io.ReadFull(p.conn, head[:]); err != nil {
		if n := head[:3]; n[0] == 0x15 && n[1] == 3 { // a TLS alert is shorter than that
			return nil, errTLSAnswer
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:4])
	if head[0] == 0x15 && head[1] == 3 {
		return nil, errTLSAnswer
	}
	if size < 4 || size > maxAnswer || int32(binary.BigEndian.Uint32(head[4:])) != p.correlation {
		return nil, errNotKafka
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(p.conn, body); err != nil {
		return nil, err
	}
	response := request.ResponseKind()
	response.SetVersion(request.GetVersion())
	return response, response.ReadFrom(body)
}
