package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"tidemark/ingress"
)

// A sendCommand signs a test event as Fast.io would and posts it.
type sendCommand struct {
	webhookFlags
	apiFlags
	outputFlags
	URL       string        `help:"URL of the ingress." name:"url" default:"http://127.0.0.1:5000/webhook/fastio" address:"url"`
	Data      string        `help:"Data directory of dev, whose secret is used when no other is given." default:"./.tidemark" placeholder:"DIR"`
	Workspace string        `help:"Workspace of the event." default:"123" placeholder:"ID" env:"-"`
	File      string        `help:"File of the event; empty for an event without one." default:"2hello" placeholder:"ID" env:"-"`
	Event     string        `help:"Name of the event." default:"workspace_storage_file_added" placeholder:"NAME" env:"-"`
	EventID   string        `help:"Id of the event; random if left out. An id that was sent before is a duplicate." placeholder:"ID" env:"-"`
	Name      string        `help:"Name of the file." placeholder:"NAME" env:"-"`
	Path      string        `help:"Path of the file." placeholder:"PATH" env:"-"`
	Size      *int64        `help:"Size of the file in bytes." placeholder:"BYTES" env:"-"`
	Mime      string        `help:"MIME type of the file." placeholder:"TYPE" env:"-"`
	At        string        `help:"Time of the event, RFC 3339; now if left out." placeholder:"TIME" env:"-"`
	Body      string        `help:"Post this JSON instead, or that of a file: @FILE, @- for stdin. The other flags of the event are ignored." placeholder:"JSON" env:"-"`
	Wait      time.Duration `help:"Longest wait until the query API, if it runs, includes the event; 0 not to wait." default:"5s" placeholder:"TIME" env:"-"`
}

// sendTimeout is longer than the 2.5 s that the ingress waits for the acknowledgement.
const sendTimeout = 15 * time.Second

// Run posts the event and prints the answer; any answer but 200 is a failure.
func (c *sendCommand) Run(ctx context.Context, con console) error {
	scheme, err := c.scheme()
	if err != nil {
		return err
	}
	body, id, err := c.body(os.Stdin)
	if err != nil {
		return err
	}
	secret, err := c.secret(scheme, workspaceOf(body))
	if err != nil {
		return err
	}
	answer, err := c.post(ctx, ingress.Sign(scheme, secret, body, id, time.Now()), body)
	if err != nil {
		return err
	}
	if err := c.printObject(con.out, answer); err != nil {
		return err
	}
	c.awaitVisible(ctx, con, answer)
	return nil
}

func (c *sendCommand) post(ctx context.Context, signature http.Header, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, usagef("--url: %w", err)
	}
	request.Header = signature
	request.Header.Set("Content-Type", "application/json")
	return do(request)
}

// awaitVisible waits until a get would include the event. The event is in the log in any case, so no error is a failure
// of send.
func (c *sendCommand) awaitVisible(ctx context.Context, con console, answer []byte) {
	var accepted struct {
		Position string `json:"position"`
	}
	if err := json.Unmarshal(answer, &accepted); err != nil || accepted.Position == "" || c.Wait <= 0 {
		return
	}
	_, err := c.query(ctx, atLeast(accepted.Position, c.Wait), "status")
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		con.note("The event is in the log, but %s does not include it yet: %v", c.APIURL, err)
	}
}

// body returns the body, and the id that the scheme standard-webhooks signs.
func (c *sendCommand) body(stdin io.Reader) (body []byte, id string, err error) {
	if c.EventID == "" {
		var random [10]byte
		rand.Read(random[:]) // never fails
		c.EventID = "evt_" + hex.EncodeToString(random[:])
	}
	if c.Body != "" {
		body, err = readBody(c.Body, stdin)
		return body, c.EventID, err
	}
	at := time.Now()
	if c.At != "" {
		if at, err = time.Parse(time.RFC3339, c.At); err != nil {
			return nil, "", usagef("--at: want a time like 2026-01-31T09:30:00Z: %w", err)
		}
	}
	body, err = json.Marshal(struct {
		Event     string `json:"event"`
		Workspace string `json:"workspace_id"`
		EventID   string `json:"event_id"`
		File      string `json:"object_id,omitempty"`
		Name      string `json:"name,omitempty"`
		Path      string `json:"path,omitempty"`
		Size      *int64 `json:"size,omitempty"`
		Mime      string `json:"mime,omitempty"`
		Created   string `json:"created"`
	}{c.Event, c.Workspace, c.EventID, c.File, c.Name, c.Path, c.Size, c.Mime, at.UTC().Format(time.RFC3339)})
	return body, c.EventID, err
}

func readBody(arg string, stdin io.Reader) ([]byte, error) {
	name, isFile := strings.CutPrefix(arg, "@")
	switch {
	case !isFile:
		return []byte(arg), nil
	case name == "-":
		return io.ReadAll(stdin)
	}
	body, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return body, nil
}

// workspaceOf returns the workspace in the body, which selects the secret. Invalid bodies are posted too, to see the
// refusal.
func workspaceOf(body []byte) string {
	var scope struct {
		Snake string `json:"workspace_id"`
		Camel string `json:"workspaceId"`
	}
	if err := json.Unmarshal(body, &scope); err != nil || scope.Snake == "" {
		return scope.Camel
	}
	return scope.Snake
}

// secret returns the one bound to the workspace, else the first that is bound to none.
func (c *sendCommand) secret(scheme ingress.Scheme, workspace string) (ingress.Secret, error) {
	secrets, err := c.secretsOrDevs(scheme, c.Data)
	if err != nil {
		return ingress.Secret{}, err
	}
	chosen := -1
	for i, s := range secrets {
		switch {
		case s.Workspace() == workspace && workspace != "":
			return s, nil
		case s.Workspace() == "" && chosen < 0:
			chosen = i
		}
	}
	if chosen < 0 {
		return ingress.Secret{}, fmt.Errorf("every webhook secret is bound to another workspace than %q", workspace)
	}
	return secrets[chosen], nil
}
