# redis-rb: `ruby redis_rb.rb PORT ...`.

require 'redis'

$stdout.sync = true

def check(name)
  yield
  puts "ok #{name}"
rescue StandardError => e
  puts "not ok #{name}: #{e.class}: #{e.message.gsub(/\s+/, ' ')} (#{e.backtrace.grep(/redis_rb/).first})"
end

def equal(got, expected)
  raise "#{got.inspect[0, 200]} instead of #{expected.inspect[0, 200]}" unless got == expected
end

def refuses(kind, text)
  yield
rescue kind => e
  raise "#{e.message} does not say #{text}" unless e.message.include?(text)
else
  raise "no error instead of #{kind}"
end

def connect(port, **options)
  Redis.new(host: '127.0.0.1', port: port, reconnect_attempts: 0, **options)
end

def tell(order, port)
  puts "!#{order} #{port}"
  equal($stdin.gets.strip, 'done')
end

BATTERY = {
  strings: lambda { |client|
    equal(client.ping, 'PONG')
    equal(client.set('key', 'value', nx: true, ex: 100), true)
    equal(client.set('key', 'x', nx: true), false)
    equal(client.get('key'), 'value')
    equal(client.get('absent'), nil)
    equal(client.getex('key', persist: true), 'value')
    equal(client.ttl('key'), -1)
    equal(client.append('key', '+'), 6)
    equal(client.getdel('key'), 'value+')
  },
  counters: lambda { |client|
    equal([client.incr('n'), client.incrby('n', 41), client.decr('n')], [1, 42, 41])
    equal(client.incrbyfloat('float', 2.5), 2.5)
    client.set('text', 'abc')
    refuses(Redis::CommandError, 'ERR value is not an integer or out of range') { client.incr('text') }
  },
  many_keys: lambda { |client|
    values = (0...300).to_h { |n| ["many:#{n}", "value #{n}"] }
    equal(client.mapped_mset(values), 'OK')
    equal(client.mget(*values.keys), values.values)
    equal(client.exists('many:1', 'many:2', 'absent'), 2)
    equal(client.unlink(*values.keys), 300)
  },
  expiry: lambda { |client|
    client.setex('e', 100, 'v')
    equal(client.ttl('e').between?(90, 100), true)
    equal(client.persist('e'), true)
    equal(client.expireat('e', 1), true)
    equal(client.exists?('e'), false)
  },
  scanning: lambda { |client|
    client.flushdb
    300.times { |n| client.set("scan:#{n}", n) }
    equal(client.scan_each(match: 'scan:*', count: 50).to_a.uniq.size, 300)
    equal(client.dbsize, 300)
  },
  pipelines: lambda { |client|
    answers = client.pipelined do |pipe|
      500.times { |n| pipe.set("pipe:#{n}", n) }
      pipe.incr('pipe:7')
      pipe.get('pipe:7')
    end
    equal(answers[499..], ['OK', 8, '8'])
  },
  bytes_and_sizes: lambda { |client|
    bytes = (0..255).to_a.pack('C*') + "\r\n$-1\r\n".b
    client.set(bytes, bytes)
    equal(client.get(bytes).b, bytes)
    large = Random.bytes(4 << 20)
    client.set('large', large)
    raise 'a large value came back otherwise' unless client.get('large').b == large
    client.set('žluťoučký 日本', 'žluťoučký 日本')
    equal(client.get('žluťoučký 日本'), 'žluťoučký 日本')
  },
  information: lambda { |client|
    equal(client.info['redis_mode'], 'standalone')
    equal(client.config(:get, 'maxmemory-policy'), { 'maxmemory-policy' => 'noeviction' })
    equal(client.call('CLIENT', 'SETNAME', 'called'), 'OK')
    equal(client.call('CLIENT', 'GETNAME'), 'called')
    refuses(Redis::CommandError, "ERR unknown command 'NOSUCHCOMMAND'") { client.call('NOSUCHCOMMAND') }
  },
  databases: lambda { |client|
    client.select(7)
    client.set('here', 'seven')
    client.select(0)
    equal(client.get('here'), nil)
    client.select(7)
    client.flushdb
    client.select(0)
  }
}.freeze

ports = ARGV.map(&:to_i)
ports.each do |port|
  client = connect(port)
  client.flushall
  BATTERY.each { |name, body| check("#{name}, port #{port}") { body.call(client) } }
  client.close
end

check('a password is needed, refused and accepted') do
  port = ENV['SECURED_PORT'].to_i
  refuses(Redis::CommandError, 'NOAUTH') { connect(port).get('k') }
  refuses(Redis::BaseError, 'WRONGPASS') { connect(port, password: 'wrong').get('k') }
  equal(connect(port, password: ENV['PASSWORD']).set('k', 'v'), 'OK')
end

check('a client goes on when its node was killed and started again') do
  client = connect(ports.last)
  client.set('kept', 'yes')
  tell('kill', ports.last)
  refuses(Redis::BaseConnectionError, '') { client.get('kept') }
  tell('start', ports.last)
  equal(client.get('kept'), 'yes')
end
