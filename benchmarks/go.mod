module github.com/scatterknn/scatter/benchmarks

go 1.25.0

require github.com/scatterknn/scatter v0.0.0

require (
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
)

replace github.com/scatterknn/scatter => ../
