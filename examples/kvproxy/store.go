package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// storeConfig is what the flags of a store say.
type storeConfig struct {
	name    string   // unique in the cluster
	listen  string   // the address for nodes
	data    string   // the directory of the streams
	cluster string   // the address for other stores; if empty, this is the only one
	routes  []string // nats://HOST:PORT of the other stores' cluster addresses
	lazy    bool     // don't sync each write to the disk
}

// storePayload is the largest message that a store takes. A document and its headers fit, also in
// the base64 of JSON.
const storePayload = 8 << 20

// store is a NATS server with JetStream in this process.
type store struct{ server *nats.Server }

// startStore returns when the server accepts connections.
func startStore(cfg storeConfig, log *zap.Logger) (*store, error) {
	host, port, err := splitAddress(cfg.listen)
	if err != nil {
		return nil, err
	}
	options := &nats.Options{
		ServerName: cfg.name, Host: host, Port: port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: cfg.data, SyncAlways: !cfg.lazy, MaxPayload: storePayload,
	}
	if cfg.cluster != "" {
		options.Cluster.Name = "kvproxy"
		if options.Cluster.Host, options.Cluster.Port, err = splitAddress(cfg.cluster); err != nil {
			return nil, err
		}
		for _, route := range cfg.routes {
			options.Routes = append(options.Routes, nats.RoutesFromStr(route)...)
		}
	}
	s, err := nats.NewServer(options)
	if err != nil {
		return nil, err
	}
	fatal := make(chan error, 1)
	s.SetLogger(storeLog{log.Named(cfg.name).Sugar(), fatal}, false, false)
	s.Start()
	for began := time.Now(); !s.ReadyForConnections(50 * time.Millisecond); {
		select {
		case err = <-fatal:
		default:
			if time.Since(began) > 10*time.Second {
				err = errors.New("not ready after 10 s; -log=info says more")
			}
		}
		if err != nil {
			s.Shutdown()
			return nil, fmt.Errorf("NATS server %s: %w", cfg.name, err)
		}
	}
	return &store{s}, nil
}

// splitAddress splits HOST:PORT. The server takes -1 for a port that the system chooses.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("address %s: the port must be a number from 0 to 65535", address)
	}
	if port == 0 {
		port = nats.RANDOM_PORT
	}
	return host, port, nil
}

// url returns the URL that nodes connect to.
func (s *store) url() string { return s.server.ClientURL() }

// stop returns when the files are closed.
func (s *store) stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// storeLog passes on what the server logs, one level lower: a store that waits for others warns.
type storeLog struct {
	log   *zap.SugaredLogger
	fatal chan<- error // why the server can't start
}

func (l storeLog) Noticef(format string, args ...any) { l.log.Infof(format, args...) }
func (l storeLog) Warnf(format string, args ...any)   { l.log.Infof(format, args...) }
func (l storeLog) Debugf(format string, args ...any)  { l.log.Debugf(format, args...) }
func (l storeLog) Tracef(format string, args ...any)  { l.log.Debugf(format, args...) }

func (l storeLog) Errorf(format string, args ...any) {
	if strings.HasPrefix(format, "Error trying to connect to route") { // each second while a store is down
		l.log.Infof(format, args...)
		return
	}
	l.log.Warnf(format, args...)
}

func (l storeLog) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, args...):
	default:
	}
}
