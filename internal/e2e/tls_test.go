// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificates writes what both ends of a TLS connection need: ca.pem, cert.pem, key.pem, and both.pem with the last two.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	authorityKey, key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "e2e client"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.ParseIP(host)},
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	ca := block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey))(t))
	cert := block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, authorityKey))(t))
	secret := block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
	for name, text := range map[string][]byte{"ca.pem": ca, "cert.pem": cert, "key.pem": secret, "both.pem": append(append([]byte{}, secret...), cert...)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// serverTLS is a member's configuration from what certificates wrote: a client needs a certificate.
func serverTLS(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("no certificate in ca.pem")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, nil
}

// TestTLS runs a part of two suites over TLS, on the port that answers plain words too (WP-50, WP-51).
func TestTLS(t *testing.T) {
	if *against != "zk" {
		t.Skip("SKIPPED: Debian's ZooKeeper is not set up for TLS here")
	}
	needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
	path := javaClasses(t, "netty-handler.jar", "netty-transport.jar", "netty-common.jar", "netty-buffer.jar", "netty-codec.jar", "netty-resolver.jar")
	cmd := java(t, "ZooKeeperSuite", path, "java/Suite.java", "java/ZooKeeperSuite.java")
	dir := certificates(t)
	members, peers := zkServersWith(t, dir)
	e := openServers(t, members, peers)
	t.Run("kazoo", func(t *testing.T) {
		t.Setenv("ZK_E2E_TLS", dir)
		suite(t, e, "over TLS with a certificate: calls, watches, kill of the leader", debianPython, "-B", "kazoo/suite.py", e.connect(),
			"create_get_set_delete", "x509_identity", "pipelining_keeps_order", "data_of_every_size", "watchers", "leader_kill")
	})
	t.Run("java", func(t *testing.T) {
		flags := []string{
			"-Dzookeeper.client.secure=true", "-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty",
			"-Dzookeeper.ssl.keyStore.location=" + filepath.Join(dir, "both.pem"), "-Dzookeeper.ssl.trustStore.location=" + filepath.Join(dir, "ca.pem"),
		}
		args := append(append(flags, cmd[1:]...), e.connect(), "create_get_set_delete", "asynchronous_calls_in_order", "large_data", "recursive_watch", "x509_identity", "leader_kill")
		suite(t, e, "over TLS with a certificate: calls, watches, kill of the leader", cmd[0], args...)
	})
}
