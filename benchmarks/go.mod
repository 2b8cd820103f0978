module github.com/scatterknn/scatter/benchmarks

go 1.25.0

require (
	github.com/bboreham/go-loser v0.0.0-20230920113527-fcc2c21820a3
	github.com/looplab/fsm v1.0.3
	github.com/qmuntal/stateless v1.7.2
	github.com/scatterknn/scatter v0.0.0
	github.com/sourcegraph/conc v0.3.0
	golang.org/x/sync v0.22.0
)

require (
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	golang.org/x/exp v0.0.0-20230713183714-613f0c0eb8a1 // indirect
)

replace github.com/scatterknn/scatter => ../
