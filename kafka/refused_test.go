package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/proxy"
	"tidemark/kafka"
)

// A load balancer or tunnel accepts a connection and drops it when the broker behind it is down. A new producer treats
// that like any other outage: its records wait for the broker.
func TestNewProducerOutlastsDroppedConnections(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(3, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	brokers := cluster.ListenAddrs()
	pair, ca := certificate(t)
	p, err := proxy.Start(
		proxy.Config{
			Brokers: brokers,
			Server:  &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	lift := p.Inject(&proxy.Fault{Effect: proxy.Refuse, Brokers: brokers[1:]})
	defer lift()
	conf := kafka.Config{Brokers: p.Addrs(), TLS: kafka.TLSConfig{Enabled: true, CAFile: ca}}
	done := make(chan error, 100)
	const producers = 5
	for range producers { // each asks any of the brokers for its id
		producer, err := kafka.NewProducer(conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(producer.Close)
		for partition := range int32(3) {
			producer.Produce(t.Context(), &kgo.Record{Topic: "t", Partition: partition, Value: []byte("value")},
				func(_ *kgo.Record, err error) { done <- err })
		}
	}
	lifted := time.After(2 * time.Second)
	for finished := 0; finished < producers*3; {
		select {
		case <-lifted:
			lift()
		case err := <-done:
			finished++
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// certificate makes one for 127.0.0.1 that is its own authority.
func certificate(t *testing.T) (pair tls.Certificate, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, caFile
}

// While one broker of three is down behind a load balancer, the others answer.
func TestRequestsOutlastDroppedConnections(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(3, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	p, err := proxy.Start(proxy.Config{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	t.Cleanup(p.Inject(&proxy.Fault{Effect: proxy.Refuse, Brokers: cluster.ListenAddrs()[:2]}))
	for range 10 { // each asks any of the brokers
		if _, err := kafka.TopicIDs(t.Context(), kafka.Config{Brokers: p.Addrs()}, "t"); err != nil {
			t.Fatal(err)
		}
	}
}
