package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidemark/kafka"
	"tidemark/topology"
)

func TestSaramaSettings(t *testing.T) {
	c := kafka.Config{Brokers: []string{"127.0.0.1:1"}}
	s, err := c.Sarama()
	if err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"from the oldest":         s.Consumer.Offsets.Initial == sarama.OffsetOldest,
		"no reset of offsets":     !s.Consumer.Group.ResetInvalidOffsets,
		"slow members are waited": s.Consumer.Group.Rebalance.Timeout >= 90*time.Second,
		"errors are returned":     s.Consumer.Return.Errors,
		"commits in a second": s.Consumer.Offsets.AutoCommit.Enable &&
			s.Consumer.Offsets.AutoCommit.Interval <= time.Second,
		"largest record": s.Consumer.Fetch.Max == 0 && s.Consumer.Fetch.MaxBytes >= topology.MaxMessageBytes,
		"a new leader is heard of": s.Metadata.RefreshFrequency > 0 && s.Metadata.RefreshFrequency <= time.Second &&
			!s.Metadata.Full,
		"no topic by typo": !s.Metadata.AllowAutoTopicCreation,
		"version":          s.Version.IsAtLeast(sarama.V2_8_0_0),
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
	metadata := time.Duration(0)
	for i := range s.Metadata.Retry.Max {
		metadata += s.Metadata.Retry.BackoffFunc(i, s.Metadata.Retry.Max)
	}
	if metadata > time.Second {
		t.Errorf("look-ups of metadata are retried for %v, and a context does not end them", metadata)
	}
	other, err := c.Sarama()
	if err != nil {
		t.Fatal(err)
	}
	if s == other {
		t.Error("two calls gave one configuration, and goka changes what it is given")
	}
}

func TestConfigRefuses(t *testing.T) {
	brokers := []string{"127.0.0.1:1"}
	nowhere := filepath.Join(t.TempDir(), "no.pem")
	for want, c := range map[string]kafka.Config{
		"no broker address":        {},
		"no broker address given":  {Brokers: []string{""}},
		"TLS is off":               {Brokers: brokers, TLS: kafka.TLSConfig{CAFile: nowhere}},
		"needs both":               {Brokers: brokers, TLS: kafka.TLSConfig{Enabled: true, CertFile: nowhere}},
		"read the Kafka CA file":   {Brokers: brokers, TLS: kafka.TLSConfig{Enabled: true, CAFile: nowhere}},
		"holds no PEM certificate": {Brokers: brokers, TLS: kafka.TLSConfig{Enabled: true, CAFile: "config.go"}},
		"client certificate": {
			Brokers: brokers,
			TLS:     kafka.TLSConfig{Enabled: true, CertFile: nowhere, KeyFile: nowhere},
		},
		"no SASL mechanism":         {Brokers: brokers, SASL: kafka.SASLConfig{User: "u", Password: "p"}},
		`"GSSAPI" is not known`:     {Brokers: brokers, SASL: kafka.SASLConfig{Mechanism: "GSSAPI", User: "u", Password: "p"}},
		"needs a user and a passwo": {Brokers: brokers, SASL: kafka.SASLConfig{Mechanism: kafka.Plain, User: "u"}},
	} {
		if _, err := c.Sarama(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Sarama: got %v, want an error with %q", err, want)
		}
		if _, err := c.Franz(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Franz: got %v, want an error with %q", err, want)
		}
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	c := kafka.Config{SASL: kafka.SASLConfig{Mechanism: kafka.Plain, User: "u", Password: "secret-of-u"}}
	var text, json strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "kafka", c, "sasl", c.SASL)
	slog.New(slog.NewJSONHandler(&json, nil)).Info("x", "kafka", c, "sasl", c.SASL)
	for _, out := range []string{text.String(), json.String(), fmt.Sprintf("%v %+v", c, c.SASL)} {
		if strings.Contains(out, c.SASL.Password) {
			t.Errorf("the password is in %s", out)
		}
	}
}

// secured is a cluster that requires TLS with a client certificate and a login.
func secured(t *testing.T, mechanism string) kafka.Config {
	t.Helper()
	ca := newAuthority(t)
	server, client := ca.issue(t, "broker"), ca.issue(t, "tidemark")
	pair, err := tls.LoadX509KeyPair(server.cert, server.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1),
		kfake.TLS(&tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert,
		}),
		kfake.EnableSASL(), kfake.Superuser(mechanism, "tidemark", "tidemark-secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return kafka.Config{
		Brokers: cluster.ListenAddrs(),
		TLS:     kafka.TLSConfig{Enabled: true, CAFile: ca.file, CertFile: client.cert, KeyFile: client.key},
		SASL:    kafka.SASLConfig{Mechanism: mechanism, User: "tidemark", Password: "tidemark-secret"},
	}
}

func TestSecured(t *testing.T) {
	for _, mechanism := range []string{kafka.Plain, kafka.ScramSHA256, kafka.ScramSHA512} {
		t.Run(mechanism, func(t *testing.T) {
			right := secured(t, mechanism)
			if _, err := kafka.TopicIDs(t.Context(), right); err != nil {
				t.Errorf("franz-go: %v", err)
			}
			s, err := right.Sarama()
			if err != nil {
				t.Fatal(err)
			}
			client, err := sarama.NewClient(right.Brokers, s)
			if err != nil {
				t.Fatalf("sarama: %v", err)
			}
			client.Close()
		})
	}
}

// The error of the first request at start-up names the cause: sarama says only that it ran out of brokers.
func TestSecuredRefuses(t *testing.T) {
	t.Parallel()
	right := secured(t, kafka.ScramSHA512)
	other := newAuthority(t)
	stranger := other.issue(t, "tidemark")
	for name, c := range map[string]struct {
		spoil func(*kafka.Config)
		want  string
	}{
		"wrong password": {func(c *kafka.Config) { c.SASL.Password = "no" }, "refuses"},
		"wrong mechanism": {
			func(c *kafka.Config) { c.SASL.Mechanism = kafka.Plain },
			"refuses the one it got",
		},
		"no login": {func(c *kafka.Config) { c.SASL = kafka.SASLConfig{} }, "SASL"},
		"no certificate": {
			func(c *kafka.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" },
			"certificate required",
		},
		"certificate of another authority": {
			func(c *kafka.Config) { c.TLS.CertFile, c.TLS.KeyFile = stranger.cert, stranger.key },
			"unknown certificate authority",
		},
		"broker of an unknown authority": {
			func(c *kafka.Config) { c.TLS.CAFile = other.file },
			"certificate signed by unknown authority",
		},
		"no TLS": {func(c *kafka.Config) { c.TLS = kafka.TLSConfig{} }, "TLS"},
		"nobody there": {
			func(c *kafka.Config) { c.Brokers = []string{"127.0.0.1:1"} },
			"connection refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := right
			c.spoil(&wrong)
			begin := time.Now()
			_, err := kafka.TopicIDs(t.Context(), wrong)
			t.Logf("after %v: %v", time.Since(begin).Round(time.Millisecond), err)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestScramOnKafka(t *testing.T) {
	brokers := os.Getenv("KAFKA_SASL_BROKERS")
	if brokers == "" {
		t.Skip("KAFKA_SASL_BROKERS is not set: deploy/kafka/kafka.sh starts a broker that knows logins")
	}
	c := kafka.Config{
		Brokers: strings.Split(brokers, ","),
		SASL:    kafka.SASLConfig{Mechanism: kafka.ScramSHA512, User: "tidemark", Password: "tidemark-secret"},
	}
	if _, err := kafka.TopicIDs(t.Context(), c); err != nil {
		t.Errorf("franz-go: %v", err)
	}
	s, err := c.Sarama()
	if err != nil {
		t.Fatal(err)
	}
	client, err := sarama.NewClient(c.Brokers, s)
	if err != nil {
		t.Fatalf("sarama: %v", err)
	}
	client.Close()
	c.SASL.Password = "no"
	if _, err := kafka.TopicIDs(t.Context(), c); err == nil ||
		!strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") {
		t.Errorf("wrong password: got %v, want the login named", err)
	}
}

// An authority signs test certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

type identity struct{ cert, key string }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) issue(t *testing.T, name string, change ...func(*x509.Certificate)) identity {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(filepath.Dir(a.file), name)
	writePEM(t, base+".pem", "CERTIFICATE", der)
	writePEM(t, base+".key", "PRIVATE KEY", private)
	return identity{cert: base + ".pem", key: base + ".key"}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Failed requests of the packages below kafka say what to do.
func TestClusterExplainsErrors(t *testing.T) {
	cluster := kafka.Config{Brokers: []string{"a:1", "b:2"}}.Cluster()
	for err, want := range map[error]string{
		kerr.UnknownTopicOrPartition:  "tidemark topics apply",
		kerr.TopicAuthorizationFailed: "grant the ACL operation Read",
		sarama.ErrOffsetOutOfRange:    "tidemark doctor",
		kerr.BrokerNotAvailable:       "a:1,b:2",
	} {
		if got := cluster.Explained("t", fmt.Errorf("look up t: %w", err)); !strings.Contains(got.Error(), want) {
			t.Errorf("%v is explained as %q, want something about %q", err, got, want)
		}
	}
	if cluster.Explained("t", nil) != nil {
		t.Error("no error is explained as one")
	}
}
