package ingress

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"tidemark/problem"
)

// FuzzWebhook posts any body, rightly signed. It is taken or refused, never an error of ours, and what is taken reaches
// the log as an object that says what the answer said, with the sender's bytes in it.
func FuzzWebhook(f *testing.F) {
	for _, body := range []string{
		minimal,
		`{"eventType":"workspace_storage_file_added","workspaceId":"4821930571648203911","eventId":"evt_01J9","fileId":"2abc","fileName":"q3.pdf","fileSize":18233,"timestamp":"2026-09-25T21:40:11Z"}`,
		`{"event":"share_storage_file_added","profile_id":"1","profile_type":"share","event_id":"e","created":"2026-09-25 21:40:11 UTC"}`,
		` {"event":"e","workspace_id":"w","event_id":"\u00e9\ud83d\ude00","received_at":"x","partition_key":7,"x":[{}]} ` + "\n",
		`{"event":"e","event":"f","workspace_id":"w","event_id":"1"}`,
		`{"event":"e","workspace_id":"w","event_id":"1","Event_Id":"2","size":1e400}`,
		`{"received_at":"a","event_id":"1","event":"e","workspace_id":"w","partition_key":"a"}`,
		strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40),
		`[]`, `null`, `"x"`, `{}`, ``, "\xff", "{\"event\":\"\xff\"}", "\ufeff{}",
	} {
		f.Add([]byte(body))
	}
	s, _ := newTestServer(f, nil)
	secret := secretsOf(f, Scheme{}, anyKey)[0]
	f.Fuzz(func(t *testing.T, body []byte) {
		events := &memoryLog{}
		s.producer = events
		r := post(t, string(body))
		r.Header.Set("Fastio-Signature", Sign(Scheme{}, secret, body, "", noon).Get("Fastio-Signature"))
		w := serve(s, r)
		records := events.all()
		if w.Code == http.StatusBadRequest {
			var p problem.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code == "" || len(records) != 0 {
				t.Fatalf("refused with %s, %d records", w.Body, len(records))
			}
			return
		}
		if w.Code != http.StatusOK || len(records) != 1 {
			t.Fatalf("%d %s, %d records", w.Code, w.Body, len(records))
		}
		var answer, value map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("answer %s: %v", w.Body, err)
		}
		decoder := json.NewDecoder(bytes.NewReader(records[0].value))
		decoder.UseNumber() // 1e400 is JSON too
		if err := decoder.Decode(&value); err != nil || !utf8.Valid(records[0].value) {
			t.Fatalf("value %q: %v", records[0].value, err)
		}
		if value["event_id"] != answer["event_id"] || value["workspace_id"] != records[0].key ||
			value["partition_key"] != records[0].key ||
			value["received_at"] != "2026-09-25T12:00:00.123456Z" ||
			value["event"] != string(records[0].headers["ce_type"]) {
			t.Fatalf("value %s, answer %s, key %q", records[0].value, w.Body, records[0].key)
		}
	})
}

// FuzzSignature feeds any headers to each scheme. It grants nothing but to a header that holds the right code for the
// bytes that this scheme signs.
func FuzzSignature(f *testing.F) {
	secrets := map[string][]Secret{}
	for i, name := range everyScheme {
		secrets[name] = secretsOf(f, schemeOf(f, name), keyFor(name, anyKey), "123="+keyFor(name, otherKey))
		for _, secret := range secrets[name] {
			h := Sign(schemeOf(f, name), secret, []byte(minimal), "msg", noon)
			signature := h.Get("Fastio-Signature") + h.Get("X-Fastio-Signature") + h.Get("Webhook-Signature")
			f.Add(uint8(i), signature, h.Get("X-Fastio-Timestamp")+h.Get("Webhook-Timestamp"), h.Get("Webhook-Id"),
				false, []byte(minimal))
			f.Add(uint8(i), strings.ToUpper(signature), "1790337600", "a.1", true, []byte("1.x"))
		}
	}
	f.Add(uint8(1), "t=1790337600,v1=,v1=====,v0", "", "", false, []byte(nil))
	f.Add(uint8(3), "v1, v1,= v1a,x", "-5", "", false, []byte("."))
	f.Fuzz(func(t *testing.T, which uint8, signature, timestamp, id string, twice bool, body []byte) {
		name := everyScheme[int(which)%len(everyScheme)]
		h := http.Header{}
		for header, value := range map[string]string{
			"Fastio-Signature": signature, "X-Fastio-Signature": signature, "Webhook-Signature": signature,
			"X-Fastio-Timestamp": timestamp, "Webhook-Timestamp": timestamp, "Webhook-Id": id,
		} {
			h.Add(header, value)
			if twice {
				h.Add(header, value)
			}
		}
		g, refused := verify(schemeOf(t, name), secrets[name], h, body, noon)
		if refused != nil {
			if refused.Status != http.StatusUnauthorized || refused.Code == "" {
				t.Fatalf("problem %+v", refused)
			}
			return
		}
		signed := [][]byte{}
		switch name {
		case Fastio:
			signed = append(signed, body)
		case FastioV1:
			for part := range strings.SplitSeq(signature, ",") {
				if unix, found := strings.CutPrefix(strings.TrimSpace(part), "t="); found {
					signed = append(signed, append([]byte(unix+"."), body...))
				}
			}
		case FastioX:
			signed = append(signed, append([]byte(strings.TrimSpace(timestamp)+"."), body...))
		case StandardWebhooks:
			signed = append(signed, append([]byte(strings.TrimSpace(id)+"."+strings.TrimSpace(timestamp)+"."), body...))
		}
		if twice || !justified(g, secrets[name], signature, signed) {
			t.Fatalf("%s granted %+v to %q (twice: %v)", name, g, h, twice)
		}
	})
}

// justified says whether signature holds, in hex or base64, the code of one of the signed texts under a secret that g
// speaks for.
func justified(g grant, secrets []Secret, signature string, signed [][]byte) bool {
	for _, secret := range secrets {
		if !g.covers(secret.workspace) {
			continue
		}
		for _, text := range signed {
			sum := mac(secret, "", text)
			plain := strings.TrimRight(base64.StdEncoding.EncodeToString(sum), "=")
			if strings.Contains(strings.ToLower(signature), hex.EncodeToString(sum)) ||
				strings.Contains(signature, plain) || respelled(signature, sum) {
				return true
			}
		}
	}
	return false
}

// respelled finds sum in base64 whose last letter carries other unused bits, which a lenient decoder takes.
func respelled(signature string, sum []byte) bool {
	for _, part := range strings.FieldsFunc(signature, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		part = strings.TrimRight(strings.TrimPrefix(part, "v1="), "=")
		if got, err := base64.RawStdEncoding.DecodeString(part); err == nil && bytes.Equal(got, sum) {
			return true
		}
	}
	return false
}
