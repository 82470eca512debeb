# Read your own writes with ActiveRecord: write on the primary, read on replicas.
#
#   ruby active_record.rb "$PRIMARY" "$REPLICA1" "$REPLICA2"
#
# The connections are roles of one class, as in config/database.yml; in Rails the
# reads may as well begin in a resolver of the middleware DatabaseSelector: what is
# there a timestamp in the session (RywContext below) is here a token.
#
# COUNT, TOKEN and GUARD in the environment are explained in README.md.
# Run with Ruby 3.1, ActiveRecord 6.1.7 and pg 1.4.5.

require 'active_record'

$stdout.sync = true

# The tokens of one user, as DatabaseSelector's context: built from the session of
# the request, and saved there with to_s.
class RywContext
  def self.call(session) = new(session['ryw'].to_s)

  def initialize(text)
    @tokens = []
    text.split('.').each { |token| keep(token) }
  end

  # Same timeline and tag: the greater LSN, as a number.  Else both.
  def keep(token)
    return unless token =~ /\A\h+-\h+-\h+\z/
    tli, lsn, tag = token.split('-')
    same = @tokens.index { |old| old.split('-').values_at(0, 2) == [tli, tag] }
    if same
      @tokens[same] = token if lsn.hex > @tokens[same].split('-')[1].hex
    else
      @tokens = (@tokens + [token]).last(8) # the first is the oldest
    end
  end

  def replace(token)
    @tokens = []
    keep(token)
  end

  def to_s = @tokens.join('.')
end

# What takes the place of DatabaseSelector's resolver: it knows where a user's
# reads and writes go.
class RywResolver
  class TokenLost < StandardError; end

  WAIT = 300      # milliseconds on one node
  DEADLINE = 2000 # for one read, over all nodes

  attr_reader :fallbacks, :on_primary

  # The roles of the replicas; the primary's is :writing.
  def initialize(model, replicas)
    @model = model
    @replicas = replicas
    @fallbacks = @on_primary = 0
  end

  # All writes of the block; those of a transaction are done at its end, so the
  # block goes around it.
  def write(context)
    ActiveRecord::Base.connected_to(role: :writing) do
      conn = connection
      before = conn.raw_connection.parameter_status('ryw.token')
      result = yield conn
      # No round trip: it came with the reply to the commit.  The user before may have
      # left one on this connection: only another one is new.
      token = conn.raw_connection.parameter_status('ryw.token')
      context.keep(token) if token && token != before
      result
    end
  end

  # The block makes a relation out of one.  uncached: the query cache would give the
  # answer from before the write.
  def read(context, turn, &block)
    deadline = now + DEADLINE
    order = @replicas.rotate(turn) + [:writing]
    i = 0
    again = false
    loop do
      left = deadline - now
      raise 'no answer in time' if left <= 0
      begin
        value = on(order[i]) do
          guard = @model.sanitize_sql_array(['ryw_require(?, ?)', context.to_s, [left, WAIT].min])
          @model.uncached { block.call(@model.where(guard)) }
        end
        @on_primary += 1 if order[i] == :writing
        return value
      rescue ActiveRecord::ActiveRecordError => error
        code = sqlstate(error)
        warn "#{code} on node #{order[i] == :writing ? 0 : 1 + @replicas.index(order[i])}"
        last = i == order.length - 1
        once = %w[RY004 40001].include?(code)
        if code == 'RY002'
          context.replace(on(:writing) { @model.connection.select_value('SELECT ryw_current_token()') })
          raise TokenLost, error.message
        elsif code == 'RY003' && !last then i = order.length - 1 # the primary knows
        elsif code == 'RY003' then context.replace('') # of another cluster: dropped
        elsif once && !again then again = true
        elsif last then raise
        elsif once then i = order.length - 1
        elsif code =~ /\A(RY00[156]|08...|57P..)\z/ then i += 1
        else raise
        end
        @fallbacks += 1
      end
    end
  end

  private

  def on(role, &block)
    ActiveRecord::Base.connected_to(role: role, prevent_writes: role != :writing) do
      connection
      block.call
    end
  end

  # Rails verifies connections when they leave the pool; between, we do.
  def connection
    conn = @model.connection
    raw = conn.raw_connection
    conn.reconnect! if raw.finished? || raw.status != PG::CONNECTION_OK
    conn
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC, :millisecond)

  # ActiveRecord wraps the driver's error.
  def sqlstate(error)
    result = error.cause.respond_to?(:result) && error.cause.result
    (result && result.error_field(PG::Result::PG_DIAG_SQLSTATE)) || '08000'
  end
end

# ---- the application ----

class Profile < ActiveRecord::Base; end

urls = ARGV
replicas = (1...urls.length).map { |n| :"replica#{n}" }
ActiveRecord::Base.configurations = {
  'default_env' => ([:writing] + replicas).zip(urls).to_h do |role, url|
    [role.to_s, { 'url' => url, 'adapter' => 'postgresql' }]
  end
}
ActiveRecord::Base.legacy_connection_handling = false # what Rails 7 does
ActiveRecord::Base.connects_to(database: ([:writing] + replicas).to_h { |role| [role, role] })

context = RywContext.new(ENV['TOKEN'].to_s)
resolver = RywResolver.new(Profile, replicas)
times = (ENV['COUNT'] || 1).to_i
stale = lost = 0
times.times do |turn|
  written = resolver.write(ENV['GUARD'] == 'off' ? RywContext.new('') : context) do
    Profile.transaction do
      profile = Profile.lock.find(1)
      profile.update!(version: profile.version + 1)
      profile.version
    end
  end
  begin
    seen = resolver.read(context, turn) { |profiles| profiles.find(1).version }
  rescue RywResolver::TokenLost
    lost += 1
    puts 'token lost: a write of yours is gone'
    retry
  end
  stale += 1 if seen < written
end
puts "#{times} written, #{stale} stale, #{lost} lost, #{resolver.on_primary} on the primary, " \
     "#{resolver.fallbacks} fallbacks, token #{context}"
