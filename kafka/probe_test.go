package kafka_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"tidemark/devbroker"
	"tidemark/kafka"
)

// probed probes the first broker and wants a fault of that step whose cause has a text; no step is no fault.
func probed(t *testing.T, c kafka.Config, step, cause string) {
	t.Helper()
	begin := time.Now()
	contact, err := kafka.Probe(t.Context(), c, c.Brokers[0])
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("took %v", took)
	}
	if step == "" {
		if err != nil {
			t.Errorf("fails: %v", err)
		}
		if login := contact.Login; !strings.Contains(login, cause) {
			t.Errorf("logged in as %q, want %q", login, cause)
		}
		return
	}
	var fault *kafka.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("got %+v, %v; want a fault of %s", contact, err, step)
	}
	t.Logf("%v (%s)", fault, fault.Fix)
	if fault.Step != step || !strings.Contains(fault.Cause, cause) || fault.Fix == "" {
		t.Errorf("got step %s, want %s: %s; want it to have %q", fault.Step, step, fault.Cause, cause)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	right := secured(t, kafka.ScramSHA512)
	other := newAuthority(t)
	stranger := other.issue(t, "tidemark")
	for name, c := range map[string]struct {
		spoil       func(*kafka.Config)
		step, cause string
	}{
		"right": {func(*kafka.Config) {}, "", "tidemark with SCRAM-SHA-512"},
		"wrong password": {
			func(c *kafka.Config) { c.SASL.Password = "no" }, kafka.StepLogin,
			"wrong password: the broker knows user \"tidemark\"",
		},
		"unknown user": {
			func(c *kafka.Config) { c.SASL.User = "nobody" }, kafka.StepLogin,
			"unknown user",
		},
		"no login": {
			func(c *kafka.Config) { c.SASL = kafka.SASLConfig{} }, kafka.StepLogin,
			"the broker requires SASL authentication, and none is configured; it offers PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
		},
		"no certificate": {
			func(c *kafka.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" },
			kafka.StepTLS, "client certificate missing",
		},
		"certificate of another authority": {
			func(c *kafka.Config) { c.TLS.CertFile, c.TLS.KeyFile = stranger.cert, stranger.key }, kafka.StepTLS,
			"the broker refuses the client certificate",
		},
		"broker of an unknown authority": {
			func(c *kafka.Config) { c.TLS.CAFile = other.file }, kafka.StepTLS,
			"unknown authority",
		},
		"another host name": {func(c *kafka.Config) {
			_, port, _ := net.SplitHostPort(c.Brokers[0])
			c.Brokers = []string{"localhost:" + port}
		}, kafka.StepTLS, "wrong host name: the certificate is for 127.0.0.1, not for localhost"},
		"no TLS": {
			func(c *kafka.Config) { c.TLS = kafka.TLSConfig{} }, kafka.StepTLS,
			"this port speaks TLS, and TLS is off here",
		},
		"nobody there": {func(c *kafka.Config) { c.Brokers = []string{"127.0.0.1:1"} }, kafka.StepTCP, "is closed"},
		"unknown host": {
			func(c *kafka.Config) { c.Brokers = []string{"kafka.invalid:9092"} }, kafka.StepDNS,
			"kafka.invalid",
		},
		"no port": {func(c *kafka.Config) { c.Brokers = []string{"kafka"} }, kafka.StepDNS, "is no address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := right
			c.spoil(&config)
			probed(t, config, c.step, c.cause)
			_, err := kafka.TopicIDs(t.Context(), config)
			if c.step == kafka.StepTLS && config.TLS.Enabled && kafka.Unreachable(err) {
				t.Errorf("a role would wait for ever: %v", err)
			}
		})
	}
}

func TestProbeOfAnOldCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for cause, change := range map[string]func(*x509.Certificate){
		"certificate expired at": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		},
		"is valid from": func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) },
	} {
		server := ca.issue(t, "broker", change)
		pair, err := tls.LoadX509KeyPair(server.cert, server.key)
		if err != nil {
			t.Fatal(err)
		}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1),
			kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cluster.Close)
		probed(t, kafka.Config{Brokers: cluster.ListenAddrs(), TLS: kafka.TLSConfig{Enabled: true, CAFile: ca.file}},
			kafka.StepTLS, cause)
	}
}

func TestProbeOfOpenPorts(t *testing.T) {
	t.Parallel()
	brokers := devbroker.ForTest(t)
	probed(t, kafka.Config{Brokers: brokers}, "", "")
	probed(t, kafka.Config{Brokers: brokers, TLS: kafka.TLSConfig{Enabled: true}}, kafka.StepTLS, "does not speak TLS")

	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	addr := []string{strings.TrimPrefix(web.URL, "http://")}
	probed(t, kafka.Config{Brokers: addr, TLS: kafka.TLSConfig{Enabled: true}}, kafka.StepTLS, "does not speak TLS")

	greeter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { greeter.Close() })
	go func() {
		for {
			conn, err := greeter.Accept()
			if err != nil {
				return
			}
			if _, err := conn.Write([]byte("SSH-2.0-OpenSSH_9.6\r\n")); err != nil {
				t.Error(err)
			}
		}
	}()
	probed(t, kafka.Config{Brokers: []string{greeter.Addr().String()}}, kafka.StepKafka, "something else than Kafka")

	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and answers none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	probed(t, kafka.Config{Brokers: []string{silent.Addr().String()}}, kafka.StepKafka, "no answer within 5s")
	probed(t, kafka.Config{Brokers: []string{silent.Addr().String()}, TLS: kafka.TLSConfig{Enabled: true}},
		kafka.StepTLS, "no answer to the handshake")
}

// What Apache Kafka says, which is not in every word what the embedded broker does.
func TestProbeOnKafka(t *testing.T) {
	brokers := os.Getenv("KAFKA_SASL_BROKERS")
	if brokers == "" {
		t.Skip("KAFKA_SASL_BROKERS is not set: deploy/kafka/kafka.sh starts a broker that knows logins")
	}
	login := func(mechanism, user, password string) kafka.Config {
		return kafka.Config{
			Brokers: strings.Split(brokers, ","),
			SASL:    kafka.SASLConfig{Mechanism: mechanism, User: user, Password: password},
		}
	}
	probed(t, login(kafka.ScramSHA512, "tidemark", "tidemark-secret"), "", "tidemark with SCRAM-SHA-512")
	probed(t, login(kafka.ScramSHA512, "tidemark", "no"), kafka.StepLogin, "wrong password")
	probed(t, login(kafka.ScramSHA512, "nobody", "no"), kafka.StepLogin, "unknown user")
	probed(t, login(kafka.Plain, "tidemark", "tidemark-secret"), kafka.StepLogin,
		"mechanism PLAIN is not enabled; the broker offers SCRAM-SHA-512")
	probed(t, kafka.Config{Brokers: strings.Split(brokers, ",")}, kafka.StepLogin,
		"the broker requires SASL authentication")
	open := login(kafka.ScramSHA512, "tidemark", "tidemark-secret")
	if open.Brokers = strings.Split(os.Getenv("KAFKA_BROKERS"), ","); open.Brokers[0] != "" {
		probed(t, open, kafka.StepLogin, "this port asks for no login")
		open.SASL = kafka.SASLConfig{}
		probed(t, open, "", "")
	}
}
