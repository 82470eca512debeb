# The application of README.md over examples/active_record.rb, which is taken in as it stands:
#   ruby app.rb RECIPE PRIMARY REPLICA...

recipe = ARGV.shift
ENV['COUNT'] = '0' # what the recipe itself does: nothing
load recipe

# The recipe's own are local to it.
names = [:writing] + (1...ARGV.length).map { |n| :"replica#{n}" }
resolver = RywResolver.new(Profile, names.drop(1))
turn = 0

puts "ready #{ActiveRecord::VERSION::STRING}"
while (line = $stdin.gets)
  id, op, user, tokens, value = line.split
  context = RywContext.new(tokens)
  answer = 'ok'
  begin
    case op
    when 'patch', 'idle'
      user = -1 if op == 'idle'
      resolver.write(context) { Profile.where(id: user.to_i).update_all(version: value.to_i) }
    when 'get'
      value = resolver.read(context, turn += 1) { |profiles| profiles.find(user.to_i).version }
    when 'stats'
      value = "#{resolver.fallbacks}/#{resolver.on_primary}"
    end
  rescue RywResolver::TokenLost
    answer = 'lost'
    value = '-'
  rescue StandardError => e
    answer = 'error'
    value = e.message.split.join('_')
  end
  text = context.to_s
  puts "#{id} #{answer} #{value} #{text.empty? ? '-' : text}"
end
